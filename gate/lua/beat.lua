#!lua
-- beat: says that a gate is alive and which format may be written for its sake, and tells of all that are.
--
-- KEYS  1 the gates: sorted set of `<id>:<format>`, scored by their last heartbeat; gates of the release before: `<id>`;
--       and `written`, by when a gate last said that it writes the newest format
-- ARGV  1 id of this gate   2 how long a member counts, in ms   3 its format
--       4 'writes' the newest format, 'kept' from that by somebody, or 'waits'
-- Returns { 1 if this gate did not count before, else 0; all members that count, this one included }
--
-- Atomic, and by this store's clock, so that all gates see the same set.
-- One caller: gate/heartbeat.py

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local kept_ms = tonumber(ARGV[2])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - kept_ms)
local new = redis.call('ZADD', KEYS[1], now_ms, ARGV[1] .. ':' .. ARGV[3])
if ARGV[4] == 'writes' then
  redis.call('ZADD', KEYS[1], now_ms, 'written')
elseif ARGV[4] == 'kept' then
  redis.call('ZREM', KEYS[1], 'written')
end
redis.call('PEXPIRE', KEYS[1], kept_ms)
return { new, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf') }
