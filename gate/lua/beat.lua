#!lua
-- beat: says that a gate is alive, and tells how many are.
--
-- KEYS  1 the gates: sorted set of ids, scored by their last heartbeat
-- ARGV  1 id of this gate   2 how long a gate counts after its last heartbeat, in ms
-- Returns { gates that count, this one included; 1 if this one did not count before, else 0 }
--
-- Atomic, and by this store's clock, so that all gates see the same set.
-- One caller: gate/heartbeat.py

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local kept_ms = tonumber(ARGV[2])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - kept_ms)
local new = redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
redis.call('PEXPIRE', KEYS[1], kept_ms)
return { redis.call('ZCARD', KEYS[1]), new }
