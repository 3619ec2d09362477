#!lua
-- take: decide a batch of calls against their budgets, count the admitted ones, change nothing for the others.
--
-- KEYS  1 the change feed (stream)   2 the epoch (string)   then S budget values, then U usage hashes; and where calls
--       hold, last, the reservations (hash) and when each is due (sorted set). All carry one hash tag. The script also writes KEYS[usage] .. ':m' .. hour,
--       ':h' .. day and ':d' .. 32 days (the store's clock names them, so the caller cannot declare them); the tag
--       puts them in the same slot.
-- ARGV  1 base epoch the calls were decided on        2 '1': look only, write nothing
--       3 deadline_ms on the store's clock, 0 = none  4 now_ms, '' = this store's TIME
--       5 S, number of budget values
--       6 shapes   '<BBBd' each, ids ascending: window id, buckets, 1 = counts tokens, bucket_ms
--       7 plans    '<HB' budget value, budgets (+ SHADOW: what of a call does not fit is not counted, and refuses
--                  nobody); then '<BI' each: window id, limit
--       8 calls    '<IdBBB' tokens, valid_until_ms (0 = always), plans, usages, 1 = holds; then '<HI' a plan and
--                  what it costs, each; then '<H' each usage hash
--       9 holds    of the calls that hold, '<Bc0IIdHc0' id, ceiling, presumed, timeout_ms, terms
--       10.. per call the record references it was decided on, separated by spaces: what is compared where the epoch
--            has moved
-- Returns { fence, epoch in force, now_ms, clock steps, failed usage writes, processor time of this run in us,
--           answers: one letter a call, { total, newest bucket } of every budget of every plan before the batch
--           (flat), { place of the refusing budget among the call's, retry_at_ms, its units that are held if only they
--           are in the way, else 0 } of every R and N (flat) };
--       fence P passed, S stale, L late; after S and L nothing was taken and the reply ends with now_ms.
--       Answers: A admitted, R refused, N never fits, E expired, S stale record, C corrupt value.
--
-- One script, so that all budgets of a call, the epoch and the clock are seen at one instant: a call is counted
-- in all of its budgets or in none, and its reservation is there as soon as its tokens are. Numbers are integers below 2^53; times are milliseconds since the Unix epoch.
--
-- A budget value is one string: the byte FORMAT, then a section per window that holds units, ids ascending:
--   id, newest bucket, units in it, units in all its buckets (UNITS_MAX: so many or more), number of older entries;
--   then the entries, oldest first: bucket mod 256, units. Only buckets that hold units are kept. A window of n buckets counts its current
--   bucket and the n before it, so n < 256 makes the remainder unambiguous.
--
-- Of a window that counts tokens, a second section with HELD_IDS added to its id has the units, by the same buckets,
-- that are held by reservations which nobody has settled or presumed yet. They are counted in the window itself too.
--
-- A reservation is one string: RESERVATION terms (opaque), state, tokens charged so far, ceiling, presumed, when its
--   bucket is counted no more; then a byte and so many HELD window id, buckets, bucket, budget value's key; then a
--   byte and so many usage hashes, '<Bc0' each, the publication's last; then ADMITTED, when it was made. settle.lua
--   ends what stands here.

local byte, sub, rep, concat = string.byte, string.sub, string.rep, table.concat
local pack, unpack_bytes, floor = struct.pack, struct.unpack, math.floor

local FORMAT = 1
local FORMAT_BYTE = string.char(FORMAT)
local SECTION, SECTION_BYTES = '<BI6I4I4B', 16
local ENTRY, ENTRY_BYTES = '<BI4', 5
local RESERVATION, HELD, NAME, ADMITTED = '<Hc0BI4I4I4d', '<BBI6Bc0', '<Bc0', '<d'
local RESERVED = string.byte('R')
local UNITS_MAX = 4000000000 -- of a bucket, and of what a section says that all hold; settle.lua keeps to it
local HELD_IDS = 128
local SHADOW = 128 -- added to the number of a plan's budgets
local HELD_RETRY_MS = 1000 -- what is held is given back when its call ends: nobody knows when
local FEED_READ_MAX = 32 -- entries, of 100 references each at most; a base epoch further back is answered as stale
local AHEAD_MAX_MS = 24 * 3600 * 1000 -- a clock that was further ahead than this stops nobody for longer
local NOW, NOW_BYTES = '<I4I4i6I4i6I5i7I7I3', 46
local MINUTES_TTL_S, HOURS_TTL_S, DAYS_TTL_S = 2 * 3600, 8 * 24 * 3600, (397 + 32) * 24 * 3600

local started_s = os.clock() -- TIME stands still while a script runs

local function spent_us()
  return floor((os.clock() - started_s) * 1000000)
end

local function store_now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

local function read_shapes(blob)
  local shapes, held, at = {}, {}, 1
  while at <= #blob do
    local shape = {}
    shape.id, shape.n, shape.tokens, shape.bucket_ms, at = unpack_bytes('<BBBd', blob, at)
    shape.tokens = shape.tokens == 1
    shapes[#shapes + 1] = shape
    shapes[shape.id] = shape
    if shape.tokens then
      shape.held = { id = shape.id + HELD_IDS, n = shape.n, bucket_ms = shape.bucket_ms, of = shape.id }
      held[#held + 1] = shape.held
    end
  end
  for i = 1, #held do
    shapes[#shapes + 1] = held[i]
    shapes[held[i].id] = held[i]
  end
  return shapes
end

---------------------------------------------------------------------------------------------------- the fence

local function counter_of(epoch)
  return tonumber(string.match(epoch, '^(%d+)%-'))
end

local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  return fields
end

-- The set of record references changed after `base`, or nil when the feed cannot prove that it tells all:
-- it must hold the base epoch itself and every counter from there to the epoch in force.
local function changed_since(base, current)
  local from, to = counter_of(base), counter_of(current)
  if not from or not to or to <= from or to - from > FEED_READ_MAX then return nil end
  local entries = redis.call('XRANGE', KEYS[1], from .. '-0', '+', 'COUNT', FEED_READ_MAX + 1)
  if #entries ~= to - from + 1 then return nil end
  local changed, last = {}, nil
  for i, entry in ipairs(entries) do
    last = fields_of(entry)
    if entry[1] ~= (from + i - 1) .. '-0' or not last.refs then return nil end
    if i == 1 then
      if last.epoch ~= base then return nil end
    else
      for ref in string.gmatch(last.refs, '%S+') do changed[ref] = true end
    end
  end
  if last.epoch ~= current then return nil end
  return changed
end

-- Whether a call's records changed. A call that names none cannot be cleared.
local function is_stale(refs, changed)
  local named = false
  for ref in string.gmatch(refs, '%S+') do
    if changed[ref] then return true end
    named = true
  end
  return not named
end

-------------------------------------------------------------------------------------------------- the windows

-- The units of a section whose total says only that there are very many: calls may turn out to cost more than budgets have.
local function sum_of(window, value)
  local sum, at = window.newest_units, window.first
  for _ = 1, window.older do
    local _, units = unpack_bytes(ENTRY, value, at)
    sum, at = sum + units, at + ENTRY_BYTES
  end
  return sum
end

-- Drops the entries that are no longer counted; false when an entry contradicts the section.
local function drop_old(window, value)
  local n, newest, first, older, total = window.shape.n, window.newest, window.first, window.older, window.total
  local oldest_age, before = n - (window.current - newest), n + 1
  while older > 0 do
    local remainder, units = unpack_bytes(ENTRY, value, first)
    local age = (newest - remainder) % 256
    if age == 0 or age >= before then return false end
    if age <= oldest_age then break end
    before, total, first, older = age, total - units, first + ENTRY_BYTES, older - 1
  end
  window.first, window.older, window.total = first, older, total
  local older_units = total - window.newest_units
  return older_units == 0 and older == 0 or older_units > 0 and older > 0
end

-- A window at the present: nothing but time passing frees units, so a clock that lies before the newest bucket
-- is not followed. Nil when the section is corrupt.
local function new_window(shape, value, now_ms, newest, newest_units, total, first, older)
  local current = floor(now_ms / shape.bucket_ms)
  local stepped = newest > current
  if stepped then current = newest end
  if total == 0 or newest < current - shape.n then newest, newest_units, total, older = current, 0, 0, 0 end
  local window = {
    shape = shape, tokens = shape.tokens, current = current, stepped = stepped, newest = newest, newest_units = newest_units,
    first = first, older = older, total = total, before = 0, asked_need = false, asked_retry = false,
  }
  if total >= UNITS_MAX then window.total = sum_of(window, value) end
  if not drop_old(window, value) then return nil end
  window.before = window.total
  return window
end

-- The windows of a value by id, or nil when it is corrupt.
local function read_windows(value, shapes, now_ms)
  local windows, at, last_id, length = {}, 2, 0, #value
  if byte(value, 1) ~= FORMAT then return nil end
  while at <= length do
    local first = at + SECTION_BYTES
    if first > length + 1 then return nil end
    local id, newest, newest_units, total, older = unpack_bytes(SECTION, value, at)
    at = first + older * ENTRY_BYTES
    if id <= last_id or at > length + 1 or newest_units == 0 then return nil end
    local shape = shapes[id] -- a window of another version is passed over
    if shape then
      local of = shape.of and windows[shape.of] -- units that are held roll on with the window that counts them
      local at_ms = of and of.current * shape.bucket_ms or now_ms
      windows[id] = new_window(shape, value, at_ms, newest, newest_units, total, first, older)
      if not windows[id] then return nil end
    end
    last_id = id
  end
  return windows
end

-- When the window will have room for `cost`, which it has not now and which is not above `limit`.
-- Calls of one batch often ask the same again; appending units never changes the answer for the same need.
local function retry_at_ms(window, value, cost, limit)
  local need = window.total + cost - limit
  if window.asked_need == need then return window.asked_retry end
  local bucket, left, at = window.current, need, window.first
  for _ = 1, window.older do
    local remainder, units = unpack_bytes(ENTRY, value, at)
    left, at = left - units, at + ENTRY_BYTES
    if left <= 0 then
      bucket = window.newest - (window.newest - remainder) % 256
      break
    end
  end
  if left > 0 and left <= window.newest_units then bucket = window.newest end
  window.asked_need, window.asked_retry = need, (bucket + window.shape.n + 1) * window.shape.bucket_ms
  return window.asked_retry
end

-- Adds a window's section after the batch to the parts of its value.
local function add_section(parts, id, window, value)
  local added = window.total - window.before
  local newest, units, older, last = window.newest, window.newest_units, window.older, ''
  if added > 0 and newest < window.current then
    last, older = pack(ENTRY, newest % 256, units), older + 1
    newest, units = window.current, 0
  end
  local k = #parts
  parts[k + 1] = pack(SECTION, id, newest, units + added, math.min(UNITS_MAX, window.total), older)
  parts[k + 2] = sub(value, window.first, window.first + window.older * ENTRY_BYTES - 1)
  parts[k + 3] = last
end

------------------------------------------------------------------------------------------------- the subjects

-- A subject's working copy: its stored windows (nil when corrupt) and those that plans ask for.
local function read_subject(key, value, shapes, now_ms)
  local subject = { key = key, value = value or '', stored = {}, windows = {}, ttl_ms = 0, changed = false }
  if value then subject.stored = read_windows(value, shapes, now_ms) end
  return subject
end

local function window_of(subject, shape, now_ms)
  local id = shape.id
  local window = subject.windows[id]
  if not window then
    window = subject.stored[id] or new_window(shape, '', now_ms, 0, 0, 0, 1, 0)
    subject.windows[id] = window
    if shape.held then
      window.held = subject.stored[shape.held.id]
      subject.windows[shape.held.id] = window.held
    end
    local ahead_ms = window.current * shape.bucket_ms - now_ms -- above 0 only where the clock has stepped back
    local lifetime_ms = (shape.n + 1) * shape.bucket_ms + math.min(math.max(0, ahead_ms), AHEAD_MAX_MS)
    if lifetime_ms > subject.ttl_ms then subject.ttl_ms = lifetime_ms end
  end
  return window
end

local function write_subject(subject, shapes)
  local parts = { FORMAT_BYTE }
  for i = 1, #shapes do
    local id = shapes[i].id
    local window = subject.windows[id]
    if window and window.total > 0 then add_section(parts, id, window, subject.value) end
  end
  redis.call('SET', subject.key, concat(parts), 'PX', subject.ttl_ms)
end

---------------------------------------------------------------------------------------------------- the calls

local NO_WINDOW = { before = 0, newest = 0, stepped = false } -- stands in for the windows of a corrupt value

-- Plans: one version of a subject's limits, as { window, limit, window, limit .., subject =, shadow = }.
local function read_plans(blob, subjects, shapes, now_ms, tallies)
  local plans, at, steps = {}, 1, 0
  while at <= #blob do
    local index, count, id, limit
    index, count, at = unpack_bytes('<HB', blob, at)
    local subject = subjects[index]
    local plan = { subject = subject, shadow = count >= SHADOW }
    count = count % SHADOW
    for i = 2, 2 * count, 2 do
      id, limit, at = unpack_bytes('<BI4', blob, at)
      local window = subject.stored and window_of(subject, shapes[id], now_ms) or NO_WINDOW
      if window.stepped then
        steps = steps + 1
        window.stepped = false
      end
      plan[i - 1], plan[i] = window, limit
      local k = #tallies
      tallies[k + 1], tallies[k + 2] = window.before, window.newest
    end
    plans[#plans + 1] = plan
  end
  return plans, steps
end

-- When a window will have room for `cost`; where it has it as soon as what is held is given back, when to ask again
-- and how much that is.
local function wait_of(window, value, cost, limit, now_ms)
  local retry_ms, held = retry_at_ms(window, value, cost, limit), window.held
  if held and window.total - held.total + cost <= limit and retry_ms > now_ms + HELD_RETRY_MS then
    return now_ms + HELD_RETRY_MS, held.total
  end
  return retry_ms, 0
end

-- Why a call that does not fit is refused: the answer, the place of the budget that says so, when to ask again, what
-- of that budget is held if only that is in the way.
local function refusal(plans, asked, count, tokens, now_ms)
  local place, worst_place, worst_ms, worst_held = 0, 0, 0, 0
  for i = 1, count, 2 do
    local plan = plans[asked[i]]
    for j = 1, #plan, 2 do
      local window, limit = plan[j], plan[j + 1]
      local cost = window.tokens and tokens or asked[i + 1]
      place = place + 1
      if cost > limit and not plan.shadow then return 'N', place, 0, 0 end
      if cost > 0 and not plan.shadow and window.total + cost > limit then
        local retry_ms, held = wait_of(window, plan.subject.value, cost, limit, now_ms)
        if retry_ms > worst_ms then worst_place, worst_ms, worst_held = place, retry_ms, held end
      end
    end
  end
  return 'R', worst_place, worst_ms, worst_held
end

-- 'A' when every budget has room, 'C' when a value cannot be read, else 'R'. What costs nothing always has room.
local function fits(plans, asked, count, tokens)
  local answer = 'A'
  for i = 1, count, 2 do
    local plan = plans[asked[i]]
    if not plan.subject.stored and not plan.shadow then return 'C' end
    for j = 1, plan.shadow and 0 or #plan, 2 do
      local cost = plan[j].tokens and tokens or asked[i + 1]
      if cost > 0 and plan[j].total + cost > plan[j + 1] then answer = 'R' end
    end
  end
  return answer
end

-- Notes units of a window as held: never more than it counts.
local function hold_units(subject, window, units)
  local held = window.held
  if not held then
    local shape = window.shape.held
    held = new_window(shape, '', window.current * shape.bucket_ms, 0, 0, 0, 1, 0)
    window.held, subject.windows[shape.id] = held, held
  end
  if held.total + units <= window.total then held.total = held.total + units end
end

local function count_call(plans, asked, count, tokens, holds)
  for i = 1, count, 2 do
    local plan = plans[asked[i]]
    for j = 1, #plan, 2 do
      local window = plan[j]
      local cost = window.tokens and tokens or asked[i + 1]
      local is_left_out = plan.shadow and (not plan.subject.stored or window.total + cost > plan[j + 1])
      if cost > 0 and not is_left_out then
        window.total = window.total + cost
        if holds == 1 and window.tokens then hold_units(plan.subject, window, cost) end
        plan.subject.changed = true
      end
    end
  end
end

-- The reservation of an admitted call: where its tokens are counted, and what is known of it.
local function reservation(plans, asked, count, usages, tokens, hold, now_ms)
  local held, names, release_ms = {}, {}, now_ms + hold.timeout_ms
  for i = 1, count, 2 do
    local plan = plans[asked[i]]
    for j = 1, #plan, 2 do
      local window, shape = plan[j], plan[j].shape
      if window.tokens then
        held[#held + 1] = pack(HELD, shape.id, shape.n, window.current, #plan.subject.key, plan.subject.key)
        release_ms = math.max(release_ms, (window.current + shape.n + 1) * shape.bucket_ms)
      end
    end
  end
  for i = count + 1, count + usages do
    local key = KEYS[2 + tonumber(ARGV[5]) + asked[i]]
    names[#names + 1] = pack(NAME, #key, key)
  end
  local head = pack(RESERVATION, #hold.terms, hold.terms, RESERVED, tokens, hold.ceiling, hold.presumed, release_ms)
  return head .. string.char(#held) .. concat(held) .. string.char(#names) .. concat(names) .. pack(ADMITTED, now_ms)
end

local function write_reservations(held, due)
  if #held == 0 then return end
  redis.call('HSET', KEYS[#KEYS - 1], unpack(held))
  redis.call('ZADD', KEYS[#KEYS], unpack(due))
end

local FORMATS = {} -- FORMATS[plans * 256 + usages]: how a call's plans and usage hashes are written
local function asked_format(asks, usages)
  local k = asks * 256 + usages
  local format = FORMATS[k]
  if not format then
    format = '<' .. rep('HI4', asks) .. rep('H', usages)
    FORMATS[k] = format
  end
  return format
end

local function read_hold(blob, at)
  local hold = {}
  hold.id, hold.ceiling, hold.presumed, hold.timeout_ms, hold.terms, at = unpack_bytes('<Bc0I4I4dHc0', blob, at)
  return hold, at
end

-- Decides the calls one after another against the working copies.
local function decide_calls(blob, holds_blob, plans, now_ms, changed, used)
  local answers, refusals, held, due, at, holds_at, number = {}, {}, {}, {}, 1, 1, 0
  while at <= #blob do
    local tokens, valid_until_ms, asks, usages, holds, asked, answer, hold
    tokens, valid_until_ms, asks, usages, holds, at = unpack_bytes('<I4dBBB', blob, at)
    asked = { unpack_bytes(asked_format(asks, usages), blob, at) }
    asks = 2 * asks
    at = asked[asks + usages + 1]
    if holds == 1 then hold, holds_at = read_hold(holds_blob, holds_at) end
    number = number + 1
    if changed and is_stale(ARGV[9 + number], changed) then
      answer = 'S'
    elseif valid_until_ms > 0 and now_ms >= valid_until_ms then
      answer = 'E'
    else
      answer = fits(plans, asked, asks, tokens)
    end
    if answer == 'A' then
      count_call(plans, asked, asks, tokens, holds)
      for i = asks + 1, asks + usages do used[asked[i]] = (used[asked[i]] or 0) + 1 end
      if hold then
        local k = #held
        held[k + 1], held[k + 2] = hold.id, reservation(plans, asked, asks, usages, tokens, hold, now_ms)
        due[k + 1], due[k + 2] = now_ms + hold.timeout_ms, hold.id
      end
    elseif answer == 'R' then
      local place, retry_ms, units
      answer, place, retry_ms, units = refusal(plans, asked, asks, tokens, now_ms)
      local k = #refusals
      refusals[k + 1], refusals[k + 2], refusals[k + 3] = place, retry_ms, units
    end
    answers[number] = answer
  end
  return concat(answers), refusals, held, due
end

---------------------------------------------------------------------------------------------------- the usage

-- What a usage hash counts now, from its field `now`: the minute since the Unix epoch, calls and tokens of that minute,
-- of its hour and of its day; what `total` was when it was written here last, and the day on which it was last found to
-- be another: gates of the version before count beside.
local function read_now(bytes, minute)
  if not bytes or #bytes ~= NOW_BYTES then
    return { minute = minute, mc = 0, mt = 0, hc = 0, ht = 0, dc = 0, dt = 0, seen = 0, old = 0 }
  end
  local now = {}
  now.minute, now.mc, now.mt, now.hc, now.ht, now.dc, now.dt, now.seen, now.old = unpack_bytes(NOW, bytes)
  return now
end

local function pack_now(now)
  return pack(NOW, now.minute, now.mc, now.mt, now.hc, now.ht, now.dc, now.dt, now.seen, now.old)
end

-- Adds what is over to the hash that keeps it; whether that could be done.
local function keep(key, field, calls, tokens, ttl_s)
  local is_kept = true
  if calls ~= 0 then is_kept = type(redis.pcall('HINCRBY', key, field, calls)) == 'number' end
  if tokens ~= 0 then is_kept = type(redis.pcall('HINCRBY', key, 't' .. field, tokens)) == 'number' and is_kept end
  if calls ~= 0 or tokens ~= 0 then redis.call('EXPIRE', key, ttl_s) end
  return is_kept
end

-- Brings `now` to a minute: a minute, an hour or a day that is over goes to the hash of its hour, day or 32 days.
local function roll(key, now, minute)
  if now.minute == minute then return true end
  local hour, day = floor(now.minute / 60), floor(now.minute / 1440)
  local is_kept = keep(key .. ':m' .. hour, now.minute % 60, now.mc, now.mt, MINUTES_TTL_S)
  now.minute, now.mc, now.mt = minute, 0, 0
  if floor(minute / 60) == hour then return is_kept end
  is_kept = keep(key .. ':h' .. day, hour % 24, now.hc, now.ht, HOURS_TTL_S) and is_kept
  now.hc, now.ht = 0, 0
  if floor(minute / 1440) == day then return is_kept end
  is_kept = keep(key .. ':d' .. floor(day / 32), day, now.dc, now.dt, DAYS_TTL_S) and is_kept
  now.dc, now.dt = 0, 0
  return is_kept
end

local function count_usage(key, calls, minute, now_ms)
  local read = redis.pcall('HMGET', key, 'total', 'now')
  local total = not read.err and tonumber(read[1] or 0)
  if not total then return false end
  local now = read_now(read[2], minute)
  if now.seen ~= total then now.old = floor(minute / 1440) end
  local is_kept = roll(key, now, minute)
  now.mc, now.hc, now.dc, now.seen = now.mc + calls, now.hc + calls, now.dc + calls, total + calls
  local written = redis.pcall('HSET', key, 'total', now.seen, 'last_ms', now_ms, 'now', pack_now(now))
  return type(written) == 'number' and is_kept
end

-- Usage never decides a call: a hash that cannot be written is reported and passed over.
local function write_usage(used, first_key, now_ms)
  local failed, minute = 0, floor(now_ms / 60000)
  for index, calls in pairs(used) do
    if not count_usage(KEYS[first_key + index], calls, minute, now_ms) then failed = failed + 1 end
  end
  return failed
end

---------------------------------------------------------------------------------------------------- the batch

local base, look_only = ARGV[1], ARGV[2] == '1'
local deadline_ms, now_ms, subject_count = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
now_ms = now_ms or store_now_ms()

local values = redis.call('MGET', unpack(KEYS, 2, 2 + subject_count))
local epoch, changed = values[1] or '', nil
if deadline_ms > 0 and now_ms > deadline_ms then return { 'L', epoch, now_ms } end
if epoch ~= base then
  changed = changed_since(base, epoch)
  if not changed then return { 'S', epoch, now_ms } end
end

local shapes, subjects, tallies, used, failed = read_shapes(ARGV[6]), {}, {}, {}, 0
for i = 1, subject_count do subjects[i] = read_subject(KEYS[2 + i], values[1 + i], shapes, now_ms) end
local plans, steps = read_plans(ARGV[7], subjects, shapes, now_ms, tallies)
local answers, refusals, held, due = decide_calls(ARGV[8], ARGV[9], plans, now_ms, changed, used)
if not look_only then
  for i = 1, subject_count do
    if subjects[i].changed then write_subject(subjects[i], shapes) end
  end
  write_reservations(held, due)
  failed = write_usage(used, 2 + subject_count, now_ms)
end
return { 'P', epoch, now_ms, steps, failed, spent_us(), answers, tallies, refusals }
