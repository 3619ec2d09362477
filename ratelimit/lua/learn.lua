#!lua
-- learn: add what calls turned out to cost to the histograms of one subject.
--
-- KEYS  1 the subject's histograms (hash): `calls`, and for each quantity and bin `<quantity>:<bin>` -> calls
-- ARGV  1 most calls remembered   2 time to live in seconds   3 calls told   4.. field, calls, field, calls ..
-- Returns { field, calls, field, calls .. }: the hash as it is now.
--
-- One script, so that gates which learn at once do not halve the hash between each other's counts. When more calls are
-- remembered than `most`, every count is halved: what is learnt follows what calls are like now, and stays bounded.

local calls = redis.call('HINCRBY', KEYS[1], 'calls', ARGV[3])
for i = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
if calls > tonumber(ARGV[1]) then
  local counted = redis.call('HGETALL', KEYS[1])
  for i = 1, #counted, 2 do
    local half = math.floor(counted[i + 1] / 2)
    if half > 0 then redis.call('HSET', KEYS[1], counted[i], half) else redis.call('HDEL', KEYS[1], counted[i]) end
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
