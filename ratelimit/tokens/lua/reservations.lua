-- reservations: what take.lua wrote down of calls, and the accounts in which they are counted. Stands before settle.lua.
--
-- The layouts, in formats 1 and 2, are written down in take.lua and take_format1.lua; a reservation keeps the format it
-- has. Calls that were counted in the same buckets under the same names have the same bytes behind their terms: those
-- are one account, which is read once a run and whose values are changed once.

local FORMAT_2 = '\255\255\2' -- a reservation of format 1 begins with the length of its terms, which is never that
local OLD, AMOUNT, HELD, OLD_HELD, NAME = '<Hc0BI4I4I4d', '<BI6I6I6', '<BBBI6Bc0', '<BBI6Bc0', '<Bc0'
local AMOUNTS_AT = 22 -- in a reservation of format 2
local RESERVED, PRESUMED = byte('R'), byte('P')
local NEW_WINDOWS, OLD_WINDOWS = { [5] = 3 }, { [3] = 5 } -- of tokens: format 1 had one, which counted an hour
local LAST_MS = 2 ^ 53
local UNTOLD = pack('<d', math.huge) -- stands for when a call was admitted that was made before that stood in it

--------------------------------------------------------------------------------------------------- the accounts

local accounts, names = {}, {} -- by what stands behind a reservation's terms; the usage subjects of each, in order

-- Where calls are counted, and where in the bytes their usage subjects are named. Bytes that end too early are an error.
local function read_held(tail, is_old)
  local held, at = {}, 2
  for i = 1, byte(tail, 1) do
    local kind, window, n, bucket, key, old_window
    if is_old then
      kind, old_window, n, bucket, key, at = TOKENS, unpack_bytes(OLD_HELD, tail, at)
      window = NEW_WINDOWS[old_window] or 0
    else
      kind, window, n, bucket, key, at = unpack_bytes(HELD, tail, at)
      if kind == TOKENS then old_window = OLD_WINDOWS[window] end
    end
    held[i] = { kind = kind, window = window, old_window = old_window, n = n, bucket = bucket, key = key }
  end
  return held, at
end

local function read_account(tail, is_old)
  local held, first = read_held(tail, is_old)
  local at, name = first + 1, nil
  for _ = 1, byte(tail, first) do
    name, at = unpack_bytes(NAME, tail, at)
  end
  for i = 1, #held do value_of(held[i].key) end -- so that its time is counted where it can be left out
  names[#names + 1] = sub(tail, first)
  return { held = held, sums = {}, until_ms = 0, number = #names }
end

local function account_of(tail, is_old)
  local account = accounts[tail]
  if not account then
    account = read_account(tail, is_old)
    accounts[tail] = account
  end
  return account
end

local function new_sums(account, kind)
  local sums = { less = 0, more = 0, freed = 0 }
  account.sums[kind] = sums
  return sums
end

-- Changes the values in which an account is counted.
local function write_account(account)
  for _, held in ipairs(account.held) do
    local sums = account.sums[held.kind]
    if sums then change_value(held, sums, account.until_ms) end
  end
end

----------------------------------------------------------------------------------------------- the reservations

local function read_old(bytes)
  local terms, state, charged, ceiling, presumed, forgotten_ms, at = unpack_bytes(OLD, bytes)
  return {
    head = #terms + 2, state = state, amounts = { TOKENS, charged, ceiling, presumed },
    forgotten_ms = forgotten_ms, admitted_ms = unpack_bytes('<d', bytes, max(at, #bytes - 7)),
    account = account_of(sub(bytes, at, -9), true),
  }
end

local function read_new(bytes)
  local state, forgotten_ms, admitted_ms, count, at = unpack_bytes('<BddB', bytes, 4)
  local amounts = {} -- four numbers each
  for i = 1, 4 * count, 4 do
    amounts[i], amounts[i + 1], amounts[i + 2], amounts[i + 3], at = unpack_bytes(AMOUNT, bytes, at)
  end
  local terms_bytes, terms_at = unpack_bytes('<H', bytes, at)
  return {
    state = state, amounts = amounts, amounts_end = at, forgotten_ms = forgotten_ms, admitted_ms = admitted_ms,
    account = account_of(sub(bytes, terms_at + terms_bytes), false),
  }
end

-- What take.lua wrote; false where it cannot have.
local function read_reservation(bytes)
  local is_read, found
  if sub(bytes, 1, 3) == FORMAT_2 then
    is_read, found = pcall(read_new, bytes)
  else
    is_read, found = pcall(read_old, bytes)
    if not is_read then is_read, found = pcall(read_old, bytes .. UNTOLD) end
  end
  return is_read and found.forgotten_ms >= 0 and found.forgotten_ms < LAST_MS and found
end

local function write_presumed(id, found, bytes)
  local parts = {}
  if found.head then
    parts[1], parts[2] = sub(bytes, 1, found.head), pack('<BI4', PRESUMED, found.amounts[2])
    parts[3] = sub(bytes, found.head + 6)
  else
    parts[1], parts[2], parts[3] = FORMAT_2, char(PRESUMED), sub(bytes, 5, AMOUNTS_AT - 1)
    for i = 1, #found.amounts, 4 do parts[#parts + 1] = pack(AMOUNT, unpack(found.amounts, i, i + 3)) end
    parts[#parts + 1] = sub(bytes, found.amounts_end)
  end
  redis.call('HSET', KEYS[1], id, concat(parts))
  redis.call('ZADD', KEYS[2], found.forgotten_ms, id)
end

local function forget(ids)
  if #ids == 0 then return end
  redis.call('HDEL', KEYS[1], unpack(ids))
  redis.call('ZREM', KEYS[2], unpack(ids))
end

-- Brings what a reservation is charged of each kind to its costs, or to what it may cost at most; what tokens that adds
-- to its usage. `costs` is nil where it is charged what was presumed.
local function charge(found, costs)
  local account, used, is_held = found.account, 0, found.state == RESERVED
  if found.forgotten_ms > account.until_ms then account.until_ms = found.forgotten_ms end
  local amounts = found.amounts
  for i = 1, #amounts, 4 do
    local kind, before = amounts[i], amounts[i + 1]
    local sums, cost = account.sums[kind] or new_sums(account, kind), amounts[i + 3]
    if costs then cost = costs[kind] or 0 end
    local after = min(cost, max(amounts[i + 2], is_held and before or 0))
    if after < before then sums.less = sums.less + before - after else sums.more = sums.more + after - before end
    if is_held then sums.freed = sums.freed + before end
    if kind == TOKENS then used = is_held and after or after - before end
    amounts[i + 1] = after
  end
  return used
end

