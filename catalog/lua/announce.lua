#!lua
-- Tells one cell of the budgets store that records changed, where these are kept in another store.
--
-- KEYS  1 epoch, 2 feed, both of the cell
-- ARGV  1 16 random hexadecimal characters, 2 the changed references, separated by spaces;
--         empty: nobody can tell which, and readers must take it that all have changed
-- Returns the new epoch
--
-- Atomic, because whoever sees the new epoch must find its entry in the feed. Epoch and feed have the form that
-- commit.lua gives them. When nobody can tell, a counter is left out: readers take a gap for exactly that.
-- One caller: catalog/announcing.py

local EPOCH, FEED = KEYS[1], KEYS[2]
local FEED_LENGTH = 10000

local function feed_counter()
  if redis.call('EXISTS', FEED) == 0 then return 0 end
  local facts = redis.call('XINFO', 'STREAM', FEED)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then return tonumber(string.match(facts[i + 1], '^%d+')) end
  end
end

local counter = tonumber(string.match(redis.call('GET', EPOCH) or '', '^(%d+)%-%x+$') or 0)
local step = ARGV[2] == '' and 2 or 1
local counted = string.format('%.0f', math.max(counter, feed_counter()) + step)
local epoch = counted .. '-' .. ARGV[1]
redis.call('XADD', FEED, 'MAXLEN', FEED_LENGTH, counted .. '-0', 'epoch', epoch, 'refs', ARGV[2])
redis.call('SET', EPOCH, epoch)
return epoch
