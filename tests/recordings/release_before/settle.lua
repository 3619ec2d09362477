#!lua
-- settle: end reservations that take.lua made: charge what their calls cost, and give back the rest.
--
-- KEYS  1 the reservations (hash)   2 when each is due (sorted set)   3 until when settling rests (string, in us)
--       The script also touches the budget values and usage hashes that the reservations themselves name; all carry
--       the one hash tag of KEYS. The layouts of both are written down in take.lua.
-- ARGV  1 now_ms, '' = this store's TIME   2 how many overdue reservations to end besides
--       3 how long to keep the store, in us; '0': as long as it takes, and no rest is kept
--       4.. id, tokens, '1' = the proxy told how its call ended, for each
-- Returns { now_ms, outcomes: one letter an id, overdue ones presumed, overdue ones forgotten, tokens that those
--           presumed were charged, faults, more, processor time of this run in us, how long to rest before the next
--           run in us };
--       More: 1 = there may be more overdue ones, 2 = settling rests and nothing was done.
--       Outcomes: S settled, L settled late (it had been presumed), U unknown (never made, settled or forgotten),
--       C its reservation could not be read and is gone. A fault is a budget value or a usage hash that could not be
--       changed. Fewer outcomes than ids: the time was used up (none at all: it is not yet time), the others stand.
--
-- With ARGV[3] a run ends as many as fit the time, one at least, and then settling rests for as long as it has worked,
-- whoever settles: at most half of the store's time is settling's, by however many gates.
--
-- One script, so that a reservation is ended once, whoever tells of it and how often: it is gone when the budgets have
-- what it cost. One that nobody settles before it is due is presumed to have cost what it says, and is kept until its
-- bucket is counted no more, so that a late settlement can put that right.
--
-- Whether ends are told at all stands in the last usage hash of a reservation, its publication's: `settled_ms` when one
-- was told last, `unsettled` how many calls that were admitted later have been presumed.

local byte, sub, floor, concat, sort = string.byte, string.sub, math.floor, table.concat, table.sort
local pack, unpack_bytes = struct.pack, struct.unpack

local FORMAT = 1
local SECTION, SECTION_BYTES = '<BI6I4I4B', 16
local ENTRY, ENTRY_BYTES = '<BI4', 5
local RESERVATION, HELD, NAME, ADMITTED = '<Hc0BI4I4I4d', '<BBI6Bc0', '<Bc0', '<d'
local RESERVED, PRESUMED = byte('R'), byte('P')
local HELD_IDS = 128 -- added to a window's id: its units that are held
local UNITS_MAX = 4000000000 -- of a bucket, and of what a section says that all hold: they are four bytes
local NOW, NOW_BYTES = '<I4I4i6I4i6I5i7I7I3', 46
local MINUTES_TTL_S, HOURS_TTL_S, DAYS_TTL_S = 2 * 3600, 8 * 24 * 3600, (397 + 32) * 24 * 3600
local LONGEST_REST_US = 1000000 -- a rest that is longer was not meant by this clock
local READING = 0.5 -- of a run's time; the rest is for writing down what it changed

local started_s = os.clock() -- TIME stands still while a script runs

local function spent_us()
  return floor((os.clock() - started_s) * 1000000)
end

local function store_now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- How long settling still rests: 0 when it may work.
local function rest_us(now_us)
  local until_us = tonumber((redis.pcall('GET', KEYS[3])) or 0)
  local left_us = (until_us or 0) - now_us
  return left_us > 0 and left_us <= LONGEST_REST_US and left_us or 0
end

-- Has settling rest for as long as this run took.
local function note_rest(now_us)
  local worked_us = math.min(spent_us(), LONGEST_REST_US / 2)
  redis.call('SET', KEYS[3], now_us + 2 * worked_us, 'PX', LONGEST_REST_US / 500)
  return worked_us
end

----------------------------------------------------------------------------------------------- the reservations

-- Unpacks, or answers false where the bytes end too early.
local function read_fields(format, bytes, at)
  local fields = { pcall(unpack_bytes, format, bytes, at) }
  if not fields[1] then return false end
  return fields
end

local function read_names(bytes, at)
  local names, count = {}, byte(bytes, at)
  if not count then return nil end
  at = at + 1
  for i = 1, count do
    local fields = read_fields(NAME, bytes, at)
    if not fields then return nil end
    names[i], at = fields[2], fields[3]
  end
  return names, at
end

-- What take.lua wrote, or nil where it cannot have.
local function read_reservation(bytes)
  local head = read_fields(RESERVATION, bytes, 1)
  if not head then return nil end
  local found = {
    terms = head[2], state = head[3], charged = head[4], ceiling = head[5], presumed = head[6], release_ms = head[7],
    held = {},
  }
  local at = head[8]
  local count = byte(bytes, at)
  if not count then return nil end
  local first = at
  at = at + 1
  for i = 1, count do
    local fields = read_fields(HELD, bytes, at)
    if not fields then return nil end
    found.held[i] = { window = fields[2], n = fields[3], bucket = fields[4], key = fields[5] }
    at = fields[6]
  end
  found.usages, at = read_names(bytes, at)
  if not found.usages then return nil end
  local admitted = read_fields(ADMITTED, bytes, at)
  found.admitted_ms = admitted and admitted[2] or math.huge -- one made before this stood in it
  found.tail = sub(bytes, first)
  return found
end

local function write_presumed(id, found)
  local head = pack(
    RESERVATION, #found.terms, found.terms, PRESUMED, found.charged, found.ceiling, found.presumed, found.release_ms
  )
  redis.call('HSET', KEYS[1], id, head .. found.tail)
  redis.call('ZADD', KEYS[2], found.release_ms, id)
end

local function forget(id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end

---------------------------------------------------------------------------------------------- the budget values

-- A section is changed in its bytes where a bucket that it has keeps units; otherwise all its buckets are taken apart.

-- Takes a section apart: its buckets by number; false where it is corrupt.
local function take_apart(section)
  local newest, at = section.newest, 1
  local buckets, sum = { [newest] = section.newest_units }, section.newest_units
  for _ = 1, section.older do
    local remainder, units = unpack_bytes(ENTRY, section.entries, at)
    local bucket = newest - (newest - remainder) % 256
    if buckets[bucket] then return false end
    buckets[bucket], sum, at = units, sum + units, at + ENTRY_BYTES
  end
  section.buckets = buckets
  return math.min(sum, UNITS_MAX) == section.total or sum % 4294967296 == section.total -- as an older script wrote it
end

-- The sections of a budget value by window id; nil where it is corrupt.
local function read_value(value)
  local sections, at = {}, 2
  if value and byte(value, 1) ~= FORMAT then return nil end
  while value and at <= #value do
    local first = at + SECTION_BYTES
    if first > #value + 1 then return nil end
    local id, newest, newest_units, total, older = unpack_bytes(SECTION, value, at)
    local after = first + older * ENTRY_BYTES
    if after > #value + 1 or sections[id] then return nil end
    sections[id] = {
      id = id, newest = newest, newest_units = newest_units, total = total, older = older,
      at = at, entries = sub(value, first, after - 1), bytes = sub(value, at, after - 1),
    }
    at = after
  end
  return sections
end

-- Where the entry of a bucket stands among those of a section, and its units.
local function find_entry(section, bucket)
  local low, high, age = 0, section.older - 1, section.newest - bucket
  while low <= high do
    local middle = floor((low + high) / 2)
    local at = middle * ENTRY_BYTES + 1
    local remainder, units = unpack_bytes(ENTRY, section.entries, at)
    local its_age = (section.newest - remainder) % 256
    if its_age == age then return at, units end
    if its_age > age then low = middle + 1 else high = middle - 1 end
  end
end

-- Changes a bucket in the section's bytes; false where that cannot be done.
local function change_bytes(section, bucket, units)
  local at, before = false, section.newest_units
  if section.buckets then return false end
  if bucket ~= section.newest then at, before = find_entry(section, bucket) end
  if not before then return false end
  local after = math.min(UNITS_MAX, before + units)
  local total = section.total + after - before
  if after <= 0 or total < after or total >= UNITS_MAX or section.total >= UNITS_MAX then return false end
  section.total, section.bytes = total, false
  if at then
    local entries = section.entries
    section.entries = sub(entries, 1, at) .. pack('<I4', after) .. sub(entries, at + ENTRY_BYTES)
  else
    section.newest_units = after
  end
  return true
end

-- What an ending has put before a section's newest bucket may lie behind it by more than a window: take.lua refuses that.
local function oldest_counted(section)
  local newest = 0
  for bucket, units in pairs(section.buckets) do
    if units > 0 and bucket > newest then newest = bucket end
  end
  return newest - (section.n or 255)
end

local function write_buckets(section)
  local order, total, oldest = {}, 0, oldest_counted(section)
  for bucket, units in pairs(section.buckets) do
    if units > 0 and bucket >= oldest then
      order[#order + 1] = bucket
      total = total + units
    end
  end
  if total == 0 then return '' end
  sort(order)
  local newest = order[#order]
  local parts = { pack(SECTION, section.id, newest, section.buckets[newest], math.min(UNITS_MAX, total), #order - 1) }
  for i = 1, #order - 1 do parts[i + 1] = pack(ENTRY, order[i] % 256, section.buckets[order[i]]) end
  return concat(parts)
end

local function write_section(section)
  if section.buckets then return write_buckets(section) end
  if section.bytes then return section.bytes end
  return pack(SECTION, section.id, section.newest, section.newest_units, section.total, section.older) .. section.entries
end

local values, faults = {}, 0 -- budget values by key, each read once and written once

local function value_of(key)
  local value = values[key]
  if not value then
    local stored = redis.pcall('GET', key)
    local is_value = type(stored) ~= 'table'
    value = { stored = stored, sections = is_value and read_value(stored), changed = false, until_ms = 0 }
    values[key] = value
  end
  return value
end

-- Adds units to a window's bucket in which a reservation is counted, or takes them away, never more than are there.
-- False where the section is corrupt.
local function adjust(value, window, held, units, release_ms, now_ms)
  local section = value.sections[window]
  if not section then
    if units <= 0 then return true end
    section = { id = window, newest = held.bucket, buckets = {} }
    value.sections[window] = section
  end
  section.n = held.n
  if release_ms <= now_ms or held.bucket < section.newest - held.n then return true end
  if not change_bytes(section, held.bucket, units) then
    if not section.buckets and not take_apart(section) then return false end
    local left = math.max(0, (section.buckets[held.bucket] or 0) + units)
    section.buckets[held.bucket] = math.min(UNITS_MAX, left)
  end
  value.changed, value.until_ms = true, math.max(value.until_ms, release_ms)
  return true
end

-- Changes what a reservation counts in one budget, and what of it is held.
local function change(held, units, freed, release_ms, now_ms)
  local value = value_of(held.key)
  local is_done = value.sections
    and (units == 0 or adjust(value, held.window, held, units, release_ms, now_ms))
    and (freed == 0 or adjust(value, held.window + HELD_IDS, held, -freed, release_ms, now_ms))
  if not is_done then
    value.sections, value.changed = nil, false
    faults = faults + 1
  end
end

local function write_value(key, value, now_ms)
  local ids, parts = {}, { string.char(FORMAT) }
  for id in pairs(value.sections) do ids[#ids + 1] = id end
  sort(ids)
  for i = 1, #ids do parts[i + 1] = write_section(value.sections[ids[i]]) end
  local bytes = concat(parts)
  if #bytes == 1 then
    redis.call('DEL', key)
  elseif value.stored then
    redis.call('SET', key, bytes, 'KEEPTTL')
  else
    redis.call('SET', key, bytes, 'PX', value.until_ms - now_ms)
  end
end

------------------------------------------------------------------------------------------------------ the usage

local used = {} -- tokens by usage hash

local function note_usage(found, tokens)
  for i = 1, #found.usages do
    local key = found.usages[i]
    used[key] = (used[key] or 0) + tokens
  end
end

local told, presumed_since = {}, {} -- by the publications' usage hashes: true; when calls were admitted

local function note_told(found)
  local key = found.usages[#found.usages]
  if key then told[key] = true end
end

local function note_presumed(found)
  local key = found.usages[#found.usages]
  if not key then return end
  presumed_since[key] = presumed_since[key] or {}
  table.insert(presumed_since[key], found.admitted_ms)
end

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

-- How many calls that were presumed were admitted after somebody told last how one ended.
local function untold(key, settled_ms)
  local count = 0
  for _, admitted_ms in ipairs(presumed_since[key] or {}) do
    if admitted_ms > (tonumber(settled_ms) or 0) then count = count + 1 end
  end
  return count
end

-- Adds to `fields` what a hash is to hold of its tokens; whether that could be done.
local function note_tokens(key, counted, now, tokens, now_ms, fields)
  if tokens == 0 then return true end
  if not counted then return false end
  local is_kept = roll(key, now, floor(now_ms / 60000))
  now.mt, now.ht, now.dt = now.mt + tokens, now.ht + tokens, now.dt + tokens
  fields[1], fields[2], fields[3], fields[4] = 'tokens', counted + tokens, 'now', pack_now(now)
  return is_kept
end

local function note_metering(key, settled_ms, unsettled, now_ms, fields)
  local last, late = #fields, told[key] and 0 or untold(key, settled_ms)
  if told[key] then
    fields[last + 1], fields[last + 2], fields[last + 3], fields[last + 4] = 'settled_ms', now_ms, 'unsettled', 0
  elseif late > 0 then
    if not unsettled then return false end
    fields[last + 1], fields[last + 2] = 'unsettled', unsettled + late
  end
  return true
end

-- A hash that is gone went with its owner: it does not come back.
local function write_usage(key, tokens, now_ms)
  if tokens == 0 and not told[key] and not presumed_since[key] then return end
  local read = redis.pcall('HMGET', key, 'total', 'tokens', 'now', 'settled_ms', 'unsettled')
  if read.err then
    faults = faults + 1
    return
  end
  local total, counted, now, settled_ms, unsettled = read[1], read[2], read[3], read[4], read[5]
  if not (total or counted or now or settled_ms or unsettled) then return end
  local fields, at = {}, read_now(now, floor(now_ms / 60000))
  local is_counted = note_tokens(key, tonumber(counted or 0), at, tokens, now_ms, fields)
  local is_told = note_metering(key, settled_ms, tonumber(unsettled or 0), now_ms, fields)
  local is_written = #fields == 0 or type(redis.pcall('HSET', key, unpack(fields))) == 'number'
  if not (is_counted and is_told and is_written) then faults = faults + 1 end
end

----------------------------------------------------------------------------------------------------- the endings

-- Brings what a reservation is charged to `tokens`, or to what it may cost at most.
local function charge(found, tokens, now_ms)
  tokens = math.min(tokens, math.max(found.ceiling, found.state == RESERVED and found.charged or 0))
  local units, freed = tokens - found.charged, found.state == RESERVED and found.charged or 0
  if units ~= 0 or freed ~= 0 then
    for i = 1, #found.held do change(found.held[i], units, freed, found.release_ms, now_ms) end
  end
  note_usage(found, found.state == RESERVED and tokens or units)
  found.charged = tokens
end

local function settle(id, tokens, is_told, now_ms)
  local bytes = redis.call('HGET', KEYS[1], id)
  if not bytes then return 'U' end
  local found = read_reservation(bytes)
  forget(id)
  if not found then return 'C' end
  charge(found, tokens, now_ms)
  if is_told then note_told(found) end
  return found.state == PRESUMED and 'L' or 'S'
end

-- Ends one overdue reservation: whether it was presumed, and at what charge.
local function presume(id, now_ms)
  local bytes = redis.call('HGET', KEYS[1], id)
  local found = bytes and read_reservation(bytes)
  if not found or found.state == PRESUMED then
    forget(id)
    return false, 0
  end
  charge(found, found.presumed, now_ms)
  note_presumed(found)
  if found.release_ms > now_ms then write_presumed(id, found) else forget(id) end
  return true, found.charged
end

-- Whether the time is used up in which a run may begin with one more.
local function is_over(most_us)
  return most_us > 0 and spent_us() >= READING * most_us
end

-- Ends overdue ones: so many presumed, so many forgotten, what was charged, and 1 where there may be more.
local function sweep(most, most_us, now_ms)
  local presumed, forgotten, charged = 0, 0, 0
  local overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, most)
  for i = 1, #overdue do
    if i > 1 and is_over(most_us) then return presumed, forgotten, charged, 1 end
    local is_presumed, tokens = presume(overdue[i], now_ms)
    if is_presumed then
      presumed, charged = presumed + 1, charged + tokens
    else
      forgotten = forgotten + 1
    end
  end
  return presumed, forgotten, charged, #overdue == most and 1 or 0
end

local most_us, now_us = tonumber(ARGV[3]), store_now_us()
local now_ms = tonumber(ARGV[1]) or floor(now_us / 1000)
local still_us = most_us > 0 and rest_us(now_us) or 0
if still_us > 0 then return { now_ms, '', 0, 0, 0, 0, 2, spent_us(), still_us } end
local outcomes = {}
for i = 4, #ARGV, 3 do
  if i > 4 and is_over(most_us) then break end
  outcomes[#outcomes + 1] = settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1', now_ms)
end
local presumed, forgotten, charged, more = sweep(tonumber(ARGV[2]), most_us, now_ms)
for key, value in pairs(values) do
  if value.changed then write_value(key, value, now_ms) end
end
for key, tokens in pairs(used) do write_usage(key, tokens, now_ms) end
local worked_us = most_us > 0 and note_rest(now_us) or 0
return { now_ms, concat(outcomes), presumed, forgotten, charged, faults, more, spent_us(), worked_us }
