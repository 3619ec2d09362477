#!lua
-- Counts one attempt under every throttle, or under none when one of them is full.
--
-- KEYS  the throttles: sorted sets of attempts, scored by their time
-- ARGV  1 id of the attempt, 2 window in ms, then for each key the most attempts in any trailing window;
--       of a negative number the newest so many are kept, and nothing is refused
-- Returns 0 when counted, else how many ms until there is room
--
-- Atomic, because attempts sent at once must not all see the same room.
-- One caller: admin/people/throttle.py

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local window_ms = tonumber(ARGV[2])

local wait_ms = 0
for n, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms - window_ms)
  local most = tonumber(ARGV[2 + n])
  if most < 0 then
    redis.call('ZREMRANGEBYRANK', key, 0, most)
  elseif redis.call('ZCARD', key) >= most then
    local oldest_ms = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
    wait_ms = math.max(wait_ms, oldest_ms + window_ms - now_ms)
  end
end
if wait_ms > 0 then return wait_ms end

for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now_ms, ARGV[1])
  redis.call('PEXPIRE', key, window_ms)
end
return 0
