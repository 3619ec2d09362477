#!lua
-- Lifts the records' epoch above one that was told of and is not in their history: the store has lost what made it.
-- Or moves it because something else than a record has changed for all.
--
-- KEYS  1 epoch, 2 feed, 3 audit
-- ARGV  1 16 random hexadecimal characters, 2 the counter to rise above, empty: any, 3 how long audit entries are kept in ms,
--       4 actor, 5 action, 6 target, 7 tenant, 8 request id, 9 detail (JSON)
-- Returns the epoch in force
--
-- Atomic, so that of several who see the loss one lifts, and because epoch and feed's entry go together. The counters
-- left out tell readers that all may have changed; one is at least. A store that is above already is left as it is.
-- One caller: catalog/store/lifting.py

local EPOCH, FEED, AUDIT = KEYS[1], KEYS[2], KEYS[3]
local FEED_LENGTH = 10000

local function feed_counter()
  if redis.call('EXISTS', FEED) == 0 then return 0 end
  local facts = redis.call('XINFO', 'STREAM', FEED)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then return tonumber(string.match(facts[i + 1], '^%d+')) end
  end
end

local epoch, floor = redis.call('GET', EPOCH) or '', tonumber(ARGV[2])
local counter = math.max(tonumber(string.match(epoch, '^(%d+)%-%x+$') or 0), feed_counter())
if epoch ~= '' and floor and counter > floor then return epoch end

local counted = string.format('%.0f', math.max(counter + 1, floor or 0) + 1)
epoch = counted .. '-' .. ARGV[1]
redis.call('XADD', FEED, 'MAXLEN', FEED_LENGTH, counted .. '-0', 'epoch', epoch, 'refs', '')
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('XADD', AUDIT, 'MINID', '~', string.format('%.0f', now_ms - ARGV[3]), '*',
  'time_ms', string.format('%.0f', now_ms), 'actor', ARGV[4], 'action', ARGV[5], 'target', ARGV[6],
  'tenant', ARGV[7], 'request_id', ARGV[8], 'detail', ARGV[9])
redis.call('SET', EPOCH, epoch)
return epoch
