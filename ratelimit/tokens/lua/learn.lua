#!lua
-- learn: add what calls turned out to cost to the histograms of one subject, unless one caller alone would shape them.
--
-- KEYS  1 the subject's histograms (hash): `calls`, and for each quantity and bin `<quantity>:<bin>` -> calls
--       2 who taught (hash): caller -> calls of theirs that are counted; `#dropped` -> the day when some were left out
-- ARGV  1 most calls remembered   2 time to live in seconds   3 so many calls one caller may teach in any case
--       4 most callers told apart   5 the day (number), '' = this store's
--       6.. for each caller: caller, calls, number of fields; then field, calls, field, calls ..
-- Returns { field, calls, field, calls .. }: the histograms as they are now.
--
-- Beside others a caller's calls are counted only up to those of all others together (or ARGV[3]) and STEP.
-- Who taught alone fills the histograms as it likes; as soon as another caller comes they shrink to ARGV[3] calls.
--
-- One script, so that gates which learn at once do not halve the hash between each other's counts. When more calls are
-- remembered than `most`, or on the day after some were left out, every count is halved: what is learnt follows what
-- calls are like now, and stays bounded.

local floor, sub = math.floor, string.sub
local most, least, most_callers = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local STEP = 50 -- calls; by so many those who call alike outgrow one another
local DROPPED, REST = '#dropped', '*' -- callers beyond those that are told apart

local function today()
  return tonumber(ARGV[5]) or floor(redis.call('TIME')[1] / 86400)
end

local function read(key)
  local found, listed, count = {}, redis.call('HGETALL', key), 0
  for i = 1, #listed, 2 do
    found[listed[i]] = tonumber(listed[i + 1])
    if sub(listed[i], 1, 1) ~= '#' then count = count + 1 end
  end
  return found, count
end

local taught, callers = read(KEYS[2])
local calls = tonumber(redis.call('HGET', KEYS[1], 'calls')) or 0

-- Multiplies every count of a hash; what comes to nothing goes.
local function scale(key, factor)
  for field, count in pairs((read(key))) do
    local left = sub(field, 1, 1) == '#' and count or floor(count * factor)
    if left > 0 then redis.call('HSET', key, field, left) else redis.call('HDEL', key, field) end
  end
end

local function scale_all(factor)
  scale(KEYS[1], factor)
  scale(KEYS[2], factor)
  taught, callers = read(KEYS[2])
  calls = tonumber(redis.call('HGET', KEYS[1], 'calls')) or 0
end

-- How many of a caller's calls are counted.
local function welcome(own, told)
  if own == calls then return told end
  return math.max(0, math.min(told, math.max(least, calls - own) + STEP - own))
end

local function note_dropped()
  if taught[DROPPED] then return end
  taught[DROPPED] = today()
  redis.call('HSET', KEYS[2], DROPPED, taught[DROPPED])
end

-- Counts a caller's calls, whose fields begin at `at`.
local function count(caller, told, fields, at)
  if not taught[caller] and callers >= most_callers then caller = REST end
  if not taught[caller] and callers == 1 and calls > least then scale_all(least / calls) end
  local own = taught[caller] or 0
  local taken = welcome(own, told)
  if taken < told then note_dropped() end
  if taken == 0 then return end
  for i = at, at + 2 * fields - 2, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[i], math.ceil(ARGV[i + 1] * taken / told)) -- what is rare stays
  end
  calls = redis.call('HINCRBY', KEYS[1], 'calls', taken)
  redis.call('HSET', KEYS[2], caller, own + taken)
  if not taught[caller] then callers = callers + 1 end
  taught[caller] = own + taken
  if calls > most then scale_all(0.5) end
end

if taught[DROPPED] and taught[DROPPED] ~= today() then
  redis.call('HDEL', KEYS[2], DROPPED)
  scale_all(0.5)
end
local at = 6
while at <= #ARGV do
  local fields = tonumber(ARGV[at + 2])
  count(ARGV[at], tonumber(ARGV[at + 1]), fields, at + 3)
  at = at + 3 + 2 * fields
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return redis.call('HGETALL', KEYS[1])
