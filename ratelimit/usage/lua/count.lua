-- count: add what a gate has counted of subjects to their usage, once, however often it is sent.
--
-- KEYS  1 the number of this gate's last flush here (string)
--       then for each subject: its usage (hash), its past (string). The script also removes the hashes in which gates of
--       the release before kept the past: usage .. ':m' .. hour, ':h' .. day, ':d' .. 32 days, and reads usage .. ':gone';
--       all carry the one hash tag of KEYS.
-- ARGV  1 number of this flush: one that is not above the last one was written   2 how long that is remembered, in ms
--       3.. for each subject: HEAD minutes, presumed calls, hours, 1 = ends were told (+ 2: one of them with usage), whole
--       answers without usage since, when a call was last admitted, when an end was last told (ms, 0: none); then of each
--       minute MINUTE since the Unix epoch, calls, tokens; of each presumed call ADMITTED when it was admitted (ms); of
--       each hour since the Unix epoch HOUR calls that cost more than they held, tokens by which they did
-- Returns { faults, processor time of this run in us, places of subjects of which nothing was written, counting from 1:
--           they have no usage, and a call that ended makes none }. A fault is a value of a foreign type or form.
--
-- One script, so that a flush is written whole or not at all, and gates that count beside one another lose nothing.
-- Minutes are those of the calls, by the clock of the script that admitted or settled them. One caller: ratelimit/usage/counting.py
--
-- The usage hash counts what runs now in its field `now` (NOW): the minute, calls and tokens of that minute, of its hour
-- and of its day, what `total` was when it was written here last, and the day on which it was last found to be another:
-- older gates count beside. What is over stands in the past (past.lua), PAST_TTL_MS after the last change.

local HEAD, MINUTE, ADMITTED, HOUR = '<HHBBI4dd', '<I4I6i7', '<d', '<I4I4I7'
local TOLD, TOLD_USAGE = 1, 2
local NOW, NOW_BYTES = '<I4I4i6I4i6I5i7I7I3', 46
local LATE_MINUTES = 60 -- a gate writes late where the store was away; earlier still, the clock has stepped back
local PAST_TTL_MS = (397 + 1) * 24 * 3600 * 1000
local RETIRED_S = 397 * 24 * 3600 -- 13 months, as commit.lua has it
local TIDY_US = 1000 -- of a run's time, in which pasts are tidied: one takes about as long
local ABOVE = '^(%d+) (%d+) (%d+)$'
local FIELDS = { 'total', 'tokens', 'last_ms', 'now', 'settled_ms', 'unsettled', 'estimated', 'above' }

local started_s = os.clock() -- TIME stands still while a script runs

local function spent_us()
  return floor((os.clock() - started_s) * 1000000)
end

----------------------------------------------------------------------- what gates of the release before have kept

-- Takes a hash of theirs in: its fields are `7` for the calls and `t7` for the tokens of a minute, an hour or a day.
local function fold_hash(key, section, before, present)
  local fields = redis.pcall('HGETALL', key)
  if fields.err or #fields == 0 then return end
  for i = 1, #fields, 2 do
    local mark, number = string.match(fields[i], '^(t?)(%d+)$')
    local units = tonumber(fields[i + 1])
    if number and units then
      local calls, tokens = mark == '' and units or 0, mark == 't' and units or 0
      add(section, before + tonumber(number), calls, tokens, present)
    end
  end
  redis.call('DEL', key)
end

-- All hashes of theirs that may be there: { name, section, what its fields are counted from, what is now, .. }.
local function older_hashes(usage, past, minute, hour, day)
  local older, k = {}, 0
  local function name(key, section, before, present)
    older[k + 1], older[k + 2], older[k + 3], older[k + 4] = key, section, before, present
    k = k + 4
  end
  for one = hour - 2, hour do name(usage .. ':m' .. one, past[1], one * 60, minute) end
  for one = day - 9, day do name(usage .. ':h' .. one, past[2], one * 24, hour) end
  for one = floor((day - 397) / 32), floor(day / 32) do name(usage .. ':d' .. one, past[3], 0, day) end
  return older, k
end

-- Takes in all that may be there, and drops what is no more needed, once a day. As a rule there is none: one look for all.
local function tidy(usage, past, minute)
  local hour, day = floor(minute / 60), floor(minute / 1440)
  local older, k = older_hashes(usage, past, minute, hour, day)
  local names = {}
  for i = 1, k, 4 do names[#names + 1] = older[i] end
  if redis.call('EXISTS', unpack(names)) > 0 then
    for i = 1, k, 4 do fold_hash(older[i], older[i + 1], older[i + 2], older[i + 3]) end
  end
  for i, present in ipairs({ minute, hour, day }) do
    trim(past[i], present)
    narrow(past[i])
  end
  past.tidied, past.changed = day, true
end

---------------------------------------------------------------------------------------------------- what runs now

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

-- A subject's past, read when it is needed first. One that cannot be read begins anew.
local function past_of(one)
  if not one.past then
    local bytes = redis.pcall('GET', one.past_key)
    local is_string = type(bytes) ~= 'table'
    one.past = is_string and bytes and unpack_past(bytes)
    if bytes and not one.past then one.faults = 1 end
    one.past = one.past or new_past()
    one.past.is_lost = not is_string
  end
  return one.past
end

-- Brings `now` to a minute, later or earlier: what it has of another minute, hour or day goes to the past.
local function roll(one, minute)
  local now = one.now
  if now.minute == minute then return end
  local past, hour, day = past_of(one), floor(now.minute / 60), floor(now.minute / 1440)
  local its_hour, its_day = floor(minute / 60), floor(minute / 1440)
  past.changed = true
  add(past[1], now.minute, now.mc, now.mt, minute)
  now.minute, now.mc, now.mt = minute, take_out(past[1], minute)
  if its_hour == hour then return end
  add(past[2], hour, now.hc, now.ht, its_hour)
  now.hc, now.ht = take_out(past[2], its_hour)
  if its_day == day then return end
  add(past[3], day, now.dc, now.dt, its_day)
  now.dc, now.dt = take_out(past[3], its_day)
end

-- Counts in a minute that is over, because its calls were counted by a gate that has written only now.
local function count_late(one, minute, calls, tokens)
  local now, past = one.now, past_of(one)
  local hour, day = floor(now.minute / 60), floor(now.minute / 1440)
  past.changed = true
  add(past[1], minute, calls, tokens, now.minute)
  if floor(minute / 60) == hour then
    now.hc, now.ht = now.hc + calls, now.ht + tokens
  else
    add(past[2], floor(minute / 60), calls, tokens, hour)
  end
  if floor(minute / 1440) == day then
    now.dc, now.dt = now.dc + calls, now.dt + tokens
  else
    add(past[3], floor(minute / 1440), calls, tokens, day)
  end
end

local function count(one, minute, calls, tokens)
  local now = one.now
  if minute < now.minute and minute >= now.minute - LATE_MINUTES then return count_late(one, minute, calls, tokens) end
  roll(one, minute)
  now.mc, now.mt = now.mc + calls, now.mt + tokens
  now.hc, now.ht = now.hc + calls, now.ht + tokens
  now.dc, now.dt = now.dc + calls, now.dt + tokens
end

local function write_past(one)
  local past = one.past
  if not past or past.is_lost then return end
  local day = floor(one.now.minute / 1440)
  if past.tidied ~= day and spent_us() < TIDY_US then tidy(one.key, past, one.now.minute) end
  if past.changed then redis.call('SET', one.past_key, pack_past(past), 'PX', PAST_TTL_MS) end
end

------------------------------------------------------------------------------------------------- how calls ended

-- How many calls that were presumed were admitted after an end was told last.
local function untold(told, settled_ms)
  local late = 0
  for i = 1, #told.presumed do
    if told.presumed[i] > settled_ms then late = late + 1 end
  end
  return late
end

local function note_ends(told, stored, fields)
  local settled_ms, unsettled = tonumber(stored[5]) or 0, tonumber(stored[6] or 0)
  if not unsettled then return false end
  local is_told = told.flags % 2 == TOLD
  if is_told then settled_ms, unsettled = max(settled_ms, told.told_ms), 0 end
  local late = untold(told, settled_ms)
  if is_told then
    fields[#fields + 1], fields[#fields + 2] = 'settled_ms', settled_ms
  end
  if is_told or late > 0 then
    fields[#fields + 1], fields[#fields + 2] = 'unsettled', unsettled + late
  end
  return true
end

local function note_estimated(told, stored, fields)
  local before = tonumber(stored[7]) or 0
  local since = (told.flags >= TOLD_USAGE and 0 or before) + told.estimated
  if since ~= before then
    fields[#fields + 1], fields[#fields + 2] = 'estimated', since
  end
end

-- Adds what calls of an hour cost above what they held; of the hour before what stands there is kept.
local function note_above(told, stored, fields)
  local text, before = stored[8] or '', nil
  for _, one in ipairs(told.above) do
    local hour, calls, tokens = string.match(text, ABOVE)
    if tonumber(hour) == one.hour + 1 then one.hour = one.hour + 1 end -- others were faster into the next hour
    if tonumber(hour) ~= one.hour then
      before = tonumber(hour) == one.hour - 1 and text or ''
      calls, tokens = 0, 0
    end
    text = string.format('%d %.0f %.0f', one.hour, calls + one.calls, tokens + one.tokens)
  end
  if #told.above == 0 then return end
  fields[#fields + 1], fields[#fields + 2] = 'above', text
  if before then
    fields[#fields + 1], fields[#fields + 2] = 'above_before', before
  end
end

---------------------------------------------------------------------------------------------------- the subjects

local function read_told(bytes)
  local told, minutes, presumed, hours, at = { minutes = {}, presumed = {}, above = {}, calls = 0, tokens = 0 }
  minutes, presumed, hours, told.flags, told.estimated, told.last_ms, told.told_ms, at = unpack_bytes(HEAD, bytes)
  for i = 1, minutes do
    local one = {}
    one.minute, one.calls, one.tokens, at = unpack_bytes(MINUTE, bytes, at)
    told.minutes[i], told.calls, told.tokens = one, told.calls + one.calls, told.tokens + one.tokens
  end
  for i = 1, presumed do told.presumed[i], at = unpack_bytes(ADMITTED, bytes, at) end
  for i = 1, hours do
    local one = {}
    one.hour, one.calls, one.tokens, at = unpack_bytes(HOUR, bytes, at)
    told.above[i] = one
  end
  return told
end

-- Usage that begins only now may be of what was removed since its call: then it ends in its time, and says whose it was.
local function retire_late(key)
  local tenant = redis.pcall('GET', key .. ':gone')
  if type(tenant) ~= 'string' then return end
  redis.call('HSET', key, 'tenant', tenant)
  redis.call('EXPIRE', key, RETIRED_S)
end

-- Whether anything but a total of another's is stored.
local function is_there(stored)
  for i = 1, #FIELDS do
    if stored[i] then return true end
  end
  return false
end

local function count_minutes(one, told, stored, fields)
  local total, tokens, last_ms = tonumber(stored[1] or 0), tonumber(stored[2] or 0), tonumber(stored[3]) or 0
  if not (total and tokens) then return false end
  if #told.minutes == 0 then return true end
  one.now = read_now(stored[4], told.minutes[1].minute)
  if one.now.seen ~= total then one.now.old = floor(told.minutes[1].minute / 1440) end
  for _, each in ipairs(told.minutes) do count(one, each.minute, each.calls, each.tokens) end
  write_past(one)
  one.now.seen = total + told.calls
  fields[1], fields[2], fields[3], fields[4] = 'total', one.now.seen, 'now', pack_now(one.now)
  if told.tokens ~= 0 then fields[5], fields[6] = 'tokens', tokens + told.tokens end
  if told.last_ms > last_ms then
    fields[#fields + 1], fields[#fields + 2] = 'last_ms', told.last_ms
  end
  return true
end

-- Writes what is told of a subject: faults, and whether there was nothing to add it to.
local function write(key, past_key, told)
  local stored = redis.pcall('HMGET', key, unpack(FIELDS))
  if stored.err then return 1, false end
  local is_new = not is_there(stored)
  if is_new and told.calls == 0 then return 0, true end
  local one, fields = { key = key, past_key = past_key, faults = 0 }, {}
  local is_done = count_minutes(one, told, stored, fields)
  is_done = note_ends(told, stored, fields) and is_done
  note_estimated(told, stored, fields)
  note_above(told, stored, fields)
  is_done = (#fields == 0 or type(redis.pcall('HSET', key, unpack(fields))) == 'number') and is_done
  if is_new then retire_late(key) end
  return max(one.faults, is_done and 0 or 1), false
end

local flush, last = tonumber(ARGV[1]), redis.pcall('GET', KEYS[1])
if type(last) == 'string' and (tonumber(last) or 0) >= flush then return { 0, spent_us(), {} } end
local faults, missing = 0, {}
for place = 1, #ARGV - 2 do
  local failed, is_missing = write(KEYS[2 * place], KEYS[2 * place + 1], read_told(ARGV[2 + place]))
  faults = faults + failed
  if is_missing then missing[#missing + 1] = place end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { faults, spent_us(), missing }
