#!lua
-- Decides which of several processes publishes, and keeps what the publishing one says of its publications.
--
-- KEYS  1 the lease: "<holder> <until_ms>", 2 the board: what the holder says (text)
-- ARGV  1 hold | release, 2 holder, 3 now_ms, '' = this store's TIME, 4 for how many ms the lease is taken,
--       5 how long the board is kept in ms, 6 the board; '' leaves it as it is
-- Returns {1, ''} when the holder has the lease from now on for so long, or has given it back; {0, board} when
--         another has it, and nothing was written
--
-- Atomic, because of two that ask at once one must hear no, and because only the holder may say what is live. The lease
-- ends by the time in it; its TTL only cleans up. One that lasts longer than any is taken for is the work of a clock that
-- was set back: it is cut to one life from now, so that its holder has stopped before anybody else has it.
-- One caller: publisher/turns/lease.py

local LEASE, BOARD = KEYS[1], KEYS[2]
local HOLDER, LIFE_MS = ARGV[2], tonumber(ARGV[4])

local function now_ms()
  if ARGV[3] ~= '' then return tonumber(ARGV[3]) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function set(holder, until_ms)
  redis.call('SET', LEASE, holder .. ' ' .. string.format('%.0f', until_ms), 'PX', 2 * LIFE_MS)
end

local now = now_ms()
local holder, until_ms = string.match(redis.call('GET', LEASE) or '', '^(%S+) (%d+)$')
until_ms = tonumber(until_ms or 0)

if holder and holder ~= HOLDER and until_ms > now then
  if until_ms > now + LIFE_MS then set(holder, now + LIFE_MS) end
  return {0, redis.call('GET', BOARD) or ''}
end
if ARGV[1] == 'release' then
  if holder == HOLDER then redis.call('DEL', LEASE) end
  return {1, ''}
end
set(HOLDER, now + LIFE_MS)
if ARGV[6] ~= '' then redis.call('SET', BOARD, ARGV[6], 'PX', ARGV[5]) end
return {1, ''}
