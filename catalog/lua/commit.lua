#!lua
-- Writes one change of the catalog, or nothing.
--
-- KEYS  1 epoch, 2 feed, 3 audit; then two for each change: its record, its kind's index; then keys to forget
-- ARGV  1 16 random hexadecimal characters, 2 number of changes, 3 how long audit entries are kept in ms,
--       4 actor, 5 action, 6 target, 7 tenant, 8 request id, 9 detail (JSON);
--       then five for each change: put | delete | check, reference, expected version (0: there is no such record,
--       -1: one whose version cannot be read), record id, JSON of the record
-- Returns {1, epoch} when everything is written, {0, reference, version found} when nothing is
--
-- Atomic, because every expectation must hold at the instant of the writes, and because a reader that sees the new
-- records must see the new epoch. The epoch counts on from the larger of the epoch's and the feed's counter, so that
-- the feed takes the entry even when one of the two was lost.
-- One caller: catalog/store.py

local EPOCH, FEED, AUDIT = KEYS[1], KEYS[2], KEYS[3]
local CHANGES = tonumber(ARGV[2])
local FEED_LENGTH = 10000

local function change(n)
  local keys, args = 3 + 2 * (n - 1), 9 + 5 * (n - 1)
  return {
    record = KEYS[keys + 1], index = KEYS[keys + 2],
    act = ARGV[args + 1], ref = ARGV[args + 2], expected = tonumber(ARGV[args + 3]),
    id = ARGV[args + 4], json = ARGV[args + 5],
  }
end

local function version_found(record)
  local json = redis.pcall('GET', record)
  if not json then return 0 end
  local ok, value = pcall(cjson.decode, json)  -- what is no string gave an error, which is no JSON either
  return ok and type(value) == 'table' and tonumber(value.version) or -1
end

local function feed_counter()
  if redis.call('EXISTS', FEED) == 0 then return 0 end
  local facts = redis.call('XINFO', 'STREAM', FEED)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then return tonumber(string.match(facts[i + 1], '^%d+')) end
  end
end

local function next_epoch()
  local counter = tonumber(string.match(redis.call('GET', EPOCH) or '', '^(%d+)%-%x+$') or 0)
  local counted = string.format('%.0f', math.max(counter, feed_counter()) + 1)
  return counted, counted .. '-' .. ARGV[1]
end

local function write(c)
  if c.act == 'put' then
    redis.call('SET', c.record, c.json)
    redis.call('ZADD', c.index, 0, c.id)
  else
    redis.call('DEL', c.record)
    redis.call('ZREM', c.index, c.id)
  end
end

local function record_act()
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local oldest = string.format('%.0f', now_ms - ARGV[3])
  redis.call('XADD', AUDIT, 'MINID', '~', oldest, '*', 'time_ms', string.format('%.0f', now_ms),
    'actor', ARGV[4], 'action', ARGV[5], 'target', ARGV[6], 'tenant', ARGV[7], 'request_id', ARGV[8],
    'detail', ARGV[9])
end

local changed, refs = {}, {}
for n = 1, CHANGES do
  local c = change(n)
  local found = version_found(c.record)
  if found ~= c.expected then return {0, c.ref, found} end
  if c.act ~= 'check' then
    changed[#changed + 1] = c
    refs[#refs + 1] = c.ref
  end
end

local counter, epoch = next_epoch()
redis.call('XADD', FEED, 'MAXLEN', FEED_LENGTH, counter .. '-0', 'epoch', epoch, 'refs', table.concat(refs, ' '))
record_act()  -- both streams before the records: a stream damaged by hand stops the script while nothing is in force
redis.call('SET', EPOCH, epoch)
for _, c in ipairs(changed) do write(c) end
for n = 3 + 2 * CHANGES + 1, #KEYS do redis.call('DEL', KEYS[n]) end
return {1, epoch}
