#!lua
-- take: decide a batch of calls against their budgets, count the admitted ones, change nothing for the others.
--
-- KEYS  1 the change feed (stream)   2 the epoch (string)   then S budget values; and where calls hold, last, the
--       reservations (hash) and when each is due (sorted set). All carry one hash tag.
-- ARGV  1 base epoch the calls were decided on
--       2 head     '<BBHdd' LOOK = write nothing, REWRITE = write every value anew; the stored format to write (1 or 2); S; deadline_ms on the
--                  store's clock, 0 = none; now_ms, -1 = this store's TIME
--       3 plans    one version of a subject's limits, each: '<HB' budget value, budgets (+ SHADOW: what of a call does
--                  not fit is not counted, and refuses nobody); then '<Bd' each: slot, limit
--       4 charges  '<dBH' valid_until_ms (0 = always), plans, length of the usage subjects; then '<H' each plan; then
--                  the usage subjects as a reservation has them: a byte, and so many '<Bc0'
--       5 draws    the calls: '<HBdd' charge, flags, hits, tokens; then where flags say so: HOLDS its hold is the next
--                  of ARGV[6]; LISTED '<d' for each plan of the charge: its own hits; hits below 0 are given back; MORE '<dddd' what it asks of the
--                  kinds 2 to 5
--       6 holds    '<Bc0dddHc0' id, ceiling, presumed, timeout_ms, terms, each
--       7 refs     a line for each charge: the record references it was decided on, separated by spaces; what is
--                  compared where the epoch has moved
--       8 what stands before a usage subject in its key; where calls hold in format 1
-- Returns { fence, epoch in force, now_ms, clock steps, processor time of this run in us,
--           answers: one letter a call, numbers: of every A, R and N for each of its budgets '<I8I8' the units counted
--           after it was decided (of one in shadow mode that had no room for an admitted call: what it would count) and
--           when that budget is whole again (0: it is), { place of the refusing budget among
--           the call's, retry_at_ms, its units that are held if only they are in the way, else 0 } of every R and N };
--       fence P passed, S stale, L late; after S and L nothing was taken and the reply ends with now_ms.
--       Answers: A admitted, R refused, N never fits, E expired, S stale record, C corrupt value.
--
-- One script, so that all budgets of a call, the epoch and the clock are seen at one instant: a call is counted
-- in all of its budgets or in none, and its reservation is there as soon as its tokens are. Numbers are integers below
-- 2^53, and none of 10^14 or more is made a text; times are milliseconds since the Unix epoch.
--
-- A budget value is one string: the byte 2, then a section for each kind and window that holds units, ascending:
--   SECTION kind, window, newest bucket, units in it, units in all its buckets (TOTAL_MAX: so many or more), how many
--   of these are held by reservations that nobody has settled or presumed yet, number of older entries; then ENTRY
--   bucket mod 256, units, the oldest first. Only buckets that hold units are kept. A window of n buckets counts its
--   current bucket and the n before it, so n < 256 makes the remainder unambiguous. A slot is kind * 16 + window.
--   Kinds: 0 calls, 1 tokens, 2 tokens in, 3 tokens out, 4 cost, 5 slots of running calls. Windows: SPANS.
--
-- A reservation is one string: RESERVATION 255, 255, 2, 'R' or 'P' once presumed, when its buckets are counted no more,
--   when it was made, number of amounts; AMOUNT kind, charged so far, ceiling, presumed, each; '<Hc0' terms (opaque);
--   a byte and so many HELD kind, window, buckets, bucket, budget value's key; a byte and so many usage subjects '<Bc0',
--   the publication's last. settle.lua ends what stands here.
--
-- Format 1, which gates of the release before read and write, is turned into this and back in take_format1.lua. A line
-- '--: file' stands for the text of that file, which the caller puts there.

local byte, sub, rep, concat = string.byte, string.sub, string.rep, table.concat
local pack, unpack_bytes, floor = struct.pack, struct.unpack, math.floor

local SECTION, SECTION_BYTES = '<BBI6I6I6I6B', 27
local ENTRY, ENTRY_BYTES = '<BI6', 7
local RESERVATION, AMOUNT, HELD = '<BBBBddBBI6I6I6', '<BI6I6I6', '<BBBI6Bc0' -- the first with its amount of tokens
local TOTAL_MAX = 99999999999999 -- what a section says that all hold; a bucket holds a tenth at most (settle.lua)
local LOOK, REWRITE = 1, 2
local HOLDS, LISTED, MORE = 1, 2, 4 -- flags of a draw
local SHADOW = 128 -- added to the number of a plan's budgets
local HELD_RETRY_MS = 1200 -- what is held is given back when its call has ended, and ends are told within a second and a bit
local FEED_READ_MAX = 32 -- entries, of 100 references each at most; a base epoch further back is answered as stale
local AHEAD_MAX_MS = 24 * 3600 * 1000 -- a clock that was further ahead than this stops nobody for longer
local SPANS = { -- a calendar period is a bucket of its own: it counts nothing before it (UTC)
  { n = 20, bucket_ms = 50, current = false }, { n = 60, bucket_ms = 1000, current = false },
  { n = 60, bucket_ms = 60000, current = false }, { n = 48, bucket_ms = 1800000, current = false },
  { n = 84, bucket_ms = 7200000, current = false }, { n = 0, bucket_ms = 86400000, current = false },
  { n = 0, current = false },
}
local MONTH, MONTH_MS = SPANS[7], 2629746000 -- a mean month

-- A table that grows is laid out anew at each power of two, which costs more than what is put into it: so tables are made
-- in their size, and scratch is used again.
local row, parts = {}, {}

local started_s = os.clock() -- TIME stands still while a script runs
local mode, written_format, subject_count, deadline_ms, now_ms = unpack_bytes('<BBHdd', ARGV[2])
if now_ms < 0 then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + floor(time[2] / 1000)
end

---------------------------------------------------------------------------------------------------- the fence

--: take_fence.lua

-------------------------------------------------------------------------------------------------- the windows

--: take_windows.lua

---------------------------------------------------------------------------------------------------- the values

--: take_format1.lua

local codec1
local function in_format1()
  codec1 = codec1 or format1()
  return codec1
end

-- A subject's working copy: its windows by slot (false: not stored; nil in their place where the value is corrupt);
-- `used`: the slots of those that plans ask for, ascending.
local function read_subject(key, value)
  local subject = {
    key = key, value = value or '', windows = { false, false, false, false, false, false, false },
    used = { false, false, false, false }, count = 0, changed = false, buckets = false,
  }
  if not value then return subject end
  if byte(value, 1) == 1 then
    value, subject.buckets = in_format1().from(value)
    subject.value = value
  end
  if not read_windows(value, subject.windows) then
    subject.windows = nil
  elseif subject.buckets then
    codec1.note_held(subject)
  end
  return subject
end

-- The window of a slot, which a plan asks for; true where it is the first to do so.
local function use_window(subject, slot)
  local windows, used = subject.windows, subject.used
  local window = windows[slot]
  if not window then
    window = new_window(slot, '', 0, 0, 0, 0, 1, 0)
    windows[slot] = window
  end
  if window.used then return window, false end
  local place = subject.count + 1
  window.used, subject.count = true, place
  while place > 1 and used[place - 1] > slot do
    used[place] = used[place - 1]
    place = place - 1
  end
  used[place] = slot
  return window, true
end

-- Adds a window's section after the batch to `parts`, of which there are k.
local function add_section(k, window, value)
  local added = window.total - window.before
  local newest, units, older, last = window.newest, window.newest_units, window.older, ''
  if added > 0 and newest < window.current then
    if units > 0 then last, older = pack(ENTRY, newest % 256, units), older + 1 end
    newest, units = window.current, 0
  end
  local first, total = window.first, window.total
  if total > TOTAL_MAX then total = TOTAL_MAX end
  parts[k + 1] = pack(SECTION, window.kind, window.slot % 16, newest, units + added, total, window.held, older)
  parts[k + 2] = sub(value, first, first + window.older * ENTRY_BYTES - 1)
  parts[k + 3] = last
  return k + 3
end

-- How long a window's units can count from now on: a bucket longer than it, or to the end of its period; and for as
-- long as the clock has stepped back, within reason.
local function lifetime_ms(window)
  local span, left_ms = window.span, release_ms(window.span, window.current) - now_ms
  local most_ms = span == MONTH and MONTH_MS or (span.n + 1) * span.bucket_ms
  if left_ms < most_ms and span.n > 0 then return most_ms end
  return math.min(left_ms, most_ms + AHEAD_MAX_MS)
end

local function write_subject(subject)
  local k, ttl_ms, used, windows = 1, 0, subject.used, subject.windows
  parts[1] = '\2'
  for i = 1, subject.count do
    local window = windows[used[i]]
    if window.total > 0 then
      k = add_section(k, window, subject.value)
      local left_ms = lifetime_ms(window)
      if left_ms > ttl_ms then ttl_ms = left_ms end
    end
  end
  local value = concat(parts, '', 1, k)
  if written_format == 1 then value = in_format1().to(value, subject) end
  if ttl_ms == 0 then
    redis.call('DEL', subject.key) -- it counts nothing any more
  else
    redis.call('SET', subject.key, value, 'PX', ttl_ms)
  end
end

---------------------------------------------------------------------------------------------------- the calls

local NO_WINDOW = { total = 0, reset = 0 } -- stands in for the windows of a corrupt value
local ZEROS = { 0, 0, 0, 0 }
local PLAN, NUMBERS, PLANS = '<BdBdBdBdBdBdBdBd', '<I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8I8', '<HHHHHHHHHHHHHHHH'

-- The format of so many parts, of which one is so long.
local function format_of(long, count, length)
  if count * length < #long then return sub(long, 1, 1 + count * length) end
  return '<' .. rep(sub(long, 2, 1 + length), count)
end

-- Plans: one version of a subject's limits, as { window, limit, window, limit .. } with their number.
local function read_plans(blob, subjects)
  local plans, at, steps, length = {}, 1, 0, #blob
  while at <= length do
    local index, count = unpack_bytes('<HB', blob, at)
    local subject, shadow = subjects[index], count >= SHADOW
    if shadow then count = count - SHADOW end
    local budgets = { unpack_bytes(format_of(PLAN, count, 2), blob, at + 3) }
    at = budgets[2 * count + 1]
    local is_sound = subject.windows
    for i = 1, 2 * count, 2 do
      local window, is_first = NO_WINDOW, false
      if is_sound then window, is_first = use_window(subject, budgets[i]) end
      if is_first and window.stepped then steps = steps + 1 end
      budgets[i] = window
    end
    plans[#plans + 1] = { subject = subject, shadow = shadow, budgets = budgets, size = 2 * count }
  end
  return plans, steps
end

-- Charges: what calls of one kind ask, the plans they are held to and how many budgets these have.
local function read_charges(blob, plans)
  local charges, at, length = {}, 1, #blob
  while at <= length do
    local valid_until_ms, count, usage_bytes = unpack_bytes('<dBH', blob, at)
    local own = { unpack_bytes(format_of(PLANS, count, 1), blob, at + 11) }
    local usage_at, corrupt, size = own[count + 1], false, 0
    for i = 1, count do
      local plan = plans[own[i]]
      own[i], size = plan, size + plan.size
      if not plan.subject.windows and not plan.shadow then corrupt = true end
    end
    charges[#charges + 1] = {
      plans = own, count = count, format = format_of(NUMBERS, size, 2), size = size, corrupt = corrupt, stale = false,
      valid_until_ms = valid_until_ms, usage = sub(blob, usage_at, usage_at + usage_bytes - 1), ending = false, counted_ms = 0,
    }
    at = usage_at + usage_bytes
  end
  return charges
end

-- When a window will have room for `cost`; where it has it as soon as what is held is given back, when to ask again
-- and how much that is.
local function wait_of(window, value, cost, limit)
  local retry_ms, held = retry_at_ms(window, value, cost, limit), window.held
  if held > 0 and window.total - held + cost <= limit and retry_ms > now_ms + HELD_RETRY_MS then
    return now_ms + HELD_RETRY_MS, held
  end
  return retry_ms, 0
end

-- What a call asks of one budget is its hits, its subject's own hits, its tokens, or more. As this is asked of every
-- budget of every call, it is said in place, three times:
--   kind == 0 and (listed and listed[i] or hits) or kind == 1 and tokens or more[kind - 1]

-- Why a call that does not fit is refused: the answer, the place of the budget that says so, when to ask again, what
-- of that budget is held if only that is in the way.
local function refusal(charge, hits, listed, tokens, more)
  local place, worst_place, worst_ms, worst_held = 0, 0, 0, 0
  for i = 1, charge.count do
    local plan = charge.plans[i]
    for j = 1, plan.size, 2 do
      local window, limit = plan.budgets[j], plan.budgets[j + 1]
      place = place + 1
      if not plan.shadow then
        local kind = window.kind
        local cost = kind == 0 and (listed and listed[i] or hits) or kind == 1 and tokens or more[kind - 1]
        if cost > limit then return 'N', place, 0, 0 end
        if cost > 0 and window.total + cost > limit then
          local retry_ms, held = wait_of(window, plan.subject.value, cost, limit)
          if retry_ms > worst_ms then worst_place, worst_ms, worst_held = place, retry_ms, held end
        end
      end
    end
  end
  return 'R', worst_place, worst_ms, worst_held
end

-- Whether every budget has room. What costs nothing always has.
local function fits(charge, hits, listed, tokens, more)
  for i = 1, charge.count do
    local plan = charge.plans[i]
    local budgets = plan.budgets
    for j = 1, plan.shadow and 0 or plan.size, 2 do
      local window = budgets[j]
      local kind = window.kind
      local cost = kind == 0 and (listed and listed[i] or hits) or kind == 1 and tokens or more[kind - 1]
      if cost > 0 and window.total + cost > budgets[j + 1] then return false end
    end
  end
  return true
end

-- Returns the windows in shadow mode that had no room for the call, each with what it had none for; nil: all had.
local function count_call(charge, hits, listed, tokens, more, holds)
  local missed
  for i = 1, charge.count do
    local plan = charge.plans[i]
    local budgets, subject = plan.budgets, plan.subject
    for j = 1, subject.windows and plan.size or 0, 2 do
      local window = budgets[j]
      local kind, total = window.kind, window.total
      local cost = kind == 0 and (listed and listed[i] or hits) or kind == 1 and tokens or more[kind - 1]
      if cost > 0 and not (plan.shadow and total + cost > budgets[j + 1]) then
        if total == window.before then window.reset = release_ms(window.span, window.current) end
        window.total = total + cost
        if holds and kind > 0 then window.held = window.held + cost end
        subject.changed = true
      elseif cost > 0 then
        missed = missed or {}
        missed[#missed + 1] = { window = window, cost = cost }
      elseif cost < 0 and total > 0 then
        give_back(subject, window, -cost)
      end
    end
  end
  return missed
end

-- What is told of the budgets of a call that was decided.
local function numbers_of(charge)
  local k = 0
  for i = 1, charge.count do
    local plan = charge.plans[i]
    local budgets = plan.budgets
    for j = 1, plan.size, 2 do
      local window = budgets[j]
      row[k + 1], row[k + 2] = window.total, window.reset
      k = k + 2
    end
  end
  return pack(charge.format, unpack(row, 1, k))
end

-- The same, where some in shadow mode had no room.
local function numbers_beyond(charge, missed)
  for i = 1, #missed do missed[i].window.total = missed[i].window.total + missed[i].cost end
  local numbers = numbers_of(charge)
  for i = 1, #missed do missed[i].window.total = missed[i].window.total - missed[i].cost end
  return numbers
end

----------------------------------------------------------------------------------------------- the reservations

-- What all reservations of a charge end with, and until when their buckets are counted: all calls of a run are counted in
-- the same.
local function note_buckets(charge)
  local held, counted_ms = {}, 0
  for i = 1, charge.count do
    local plan = charge.plans[i]
    for j = 1, plan.size, 2 do
      local window, key = plan.budgets[j], plan.subject.key
      if window.kind > 0 then
        held[#held + 1] = pack(HELD, window.kind, window.slot % 16, window.span.n, window.current, #key, key)
        counted_ms = math.max(counted_ms, release_ms(window.span, window.current))
      end
    end
  end
  charge.counted_ms = counted_ms
  if written_format == 1 then
    charge.ending = in_format1().ending(held, charge.usage)
  else
    charge.ending = string.char(#held) .. concat(held) .. charge.usage
  end
end

-- The amounts beside tokens.
local function further(more)
  local amounts, count = '', 0
  for i = 1, 4 do
    local units = more[i]
    if units > 0 then amounts, count = amounts .. pack(AMOUNT, i + 1, units, units, units), count + 1 end
  end
  return amounts, count
end

-- The reservation of an admitted call: where its units are counted, and what is known of it.
local function reservation(charge, tokens, more, ceiling, presumed, due_ms, terms)
  if not charge.ending then note_buckets(charge) end
  local forgotten_ms = math.max(due_ms, charge.counted_ms)
  if written_format == 1 then
    return in_format1().reservation(tokens, ceiling, presumed, forgotten_ms, terms) .. charge.ending
  end
  local amounts, count = '', 0
  if more ~= ZEROS then amounts, count = further(more) end
  return pack(RESERVATION, 255, 255, 2, 82, forgotten_ms, now_ms, 1 + count, 1, tokens, ceiling, presumed)
    .. amounts .. pack('<H', #terms) .. terms .. charge.ending
end

---------------------------------------------------------------------------------------------------- the batch

-- Decides the calls one after another against the working copies.
local function decide_calls(blob, holds_blob, charges)
  local answers, numbers, refusals, held, due, at, holds_at, number, told, holding = {}, {}, {}, {}, {}, 1, 1, 0, 0, 0
  local due_ms, due_text, last_timeout_ms = 0, '', -1 -- the same for many
  local length = #blob
  while at <= length do
    local index, flags, hits, tokens, listed, id, ceiling, presumed, timeout_ms, terms, answer, missed
    local more = ZEROS
    index, flags, hits, tokens, at = unpack_bytes('<HBdd', blob, at)
    local charge = charges[index]
    if flags > 0 then
      if flags % LISTED >= HOLDS then
        id, ceiling, presumed, timeout_ms, terms, holds_at = unpack_bytes('<Bc0dddHc0', holds_blob, holds_at)
      end
      if flags % MORE >= LISTED then
        listed = { unpack_bytes('<' .. rep('d', charge.count), blob, at) }
        at = listed[#listed]
      end
      if flags >= MORE then
        more = { unpack_bytes('<dddd', blob, at) }
        at = more[5]
      end
    end
    number = number + 1
    if charge.stale then
      answer = 'S'
    elseif charge.valid_until_ms > 0 and now_ms >= charge.valid_until_ms then
      answer = 'E'
    elseif charge.corrupt then
      answer = 'C'
    else
      if fits(charge, hits, listed, tokens, more) then
        answer = 'A'
        missed = count_call(charge, hits, listed, tokens, more, id)
        if id then
          if timeout_ms ~= last_timeout_ms then
            due_ms, last_timeout_ms = now_ms + timeout_ms, timeout_ms
            due_text = string.format('%.17g', due_ms) -- each number would be made a text by itself
          end
          holding = holding + 2
          held[holding - 1], held[holding] = id, reservation(charge, tokens, more, ceiling, presumed, due_ms, terms)
          due[holding - 1], due[holding] = due_text, id
        end
      else
        local k = #refusals
        answer, refusals[k + 1], refusals[k + 2], refusals[k + 3] = refusal(charge, hits, listed, tokens, more)
      end
      told = told + 1
      numbers[told] = missed and numbers_beyond(charge, missed) or numbers_of(charge)
    end
    answers[number] = answer
  end
  return concat(answers), concat(numbers), refusals, held, due
end

local values = redis.call('MGET', unpack(KEYS, 2, 2 + subject_count))
local epoch, changed = values[1] or '', nil
if deadline_ms > 0 and now_ms > deadline_ms then return { 'L', epoch, now_ms } end
if epoch ~= ARGV[1] then
  changed = changed_since(ARGV[1], epoch)
  if not changed then return { 'S', epoch, now_ms } end
end

local subjects = {}
for i = 1, subject_count do subjects[i] = read_subject(KEYS[2 + i], values[1 + i]) end
local plans, steps = read_plans(ARGV[3], subjects)
local charges = read_charges(ARGV[4], plans)
if changed then mark_stale(charges, ARGV[7], changed) end
local answers, numbers, refusals, held, due = decide_calls(ARGV[5], ARGV[6], charges)
if mode ~= LOOK then
  for i = 1, subject_count do
    local subject = subjects[i]
    if subject.changed or mode == REWRITE and subject.windows then write_subject(subject) end
  end
  if #held > 0 then
    redis.call('HSET', KEYS[#KEYS - 1], unpack(held))
    redis.call('ZADD', KEYS[#KEYS], unpack(due))
  end
end
return { 'P', epoch, now_ms, steps, floor((os.clock() - started_s) * 1000000), answers, numbers, refusals }
