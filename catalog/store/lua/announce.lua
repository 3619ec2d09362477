#!lua
-- Tells one cell of the budgets store that records changed, where these are kept in another store.
--
-- KEYS  1 epoch, 2 feed, 3 the records' epoch told last, all of the cell
-- ARGV  1 16 random hexadecimal characters, 2 the changed references, separated by spaces;
--         empty: nobody can tell which, and readers must take it that all have changed
--       3 the epoch of the records' store that has the change; empty where the caller does not know it
-- Returns the new epoch
--
-- Atomic, because whoever sees the new epoch must find its entry in the feed, and the records' epoch without which
-- nobody may take his records for current. Of several that are told in any order the one with the largest counter stays.
-- Epoch and feed have the form that commit.lua gives them. When nobody can tell, a counter is left out: readers take a
-- gap for exactly that.
-- One caller: catalog/store/announcing.py

local EPOCH, FEED, RECORDS = KEYS[1], KEYS[2], KEYS[3]
local FEED_LENGTH = 10000

local function feed_counter()
  if redis.call('EXISTS', FEED) == 0 then return 0 end
  local facts = redis.call('XINFO', 'STREAM', FEED)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then return tonumber(string.match(facts[i + 1], '^%d+')) end
  end
end

local function counter_of(epoch)
  return tonumber(string.match(epoch or '', '^(%d+)%-%x+$') or 0)
end

local step = ARGV[2] == '' and 2 or 1
local counted = string.format('%.0f', math.max(counter_of(redis.call('GET', EPOCH)), feed_counter()) + step)
local epoch = counted .. '-' .. ARGV[1]
redis.call('XADD', FEED, 'MAXLEN', FEED_LENGTH, counted .. '-0', 'epoch', epoch, 'refs', ARGV[2])
if counter_of(ARGV[3]) > counter_of(redis.call('GET', RECORDS)) then redis.call('SET', RECORDS, ARGV[3]) end
redis.call('SET', EPOCH, epoch)
return epoch
