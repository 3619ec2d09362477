-- settle: end reservations that take.lua made: charge what their calls cost, and give back the rest.
--
-- KEYS  1 the reservations (hash)   2 when each is due (sorted set)   3 until when settling rests (string, in us)
--       4 the same as gates of the version before write it: heeded, and theirs alone
--       5 what this gate's last run that ended something did (string, half an hour)
--       The script also touches the budget values that the reservations themselves name; all carry the one hash tag of
--       KEYS. The layouts of both, in formats 1 and 2, are written down in take.lua; both are read, and a value or a
--       reservation keeps the format it has.
-- ARGV  1 head     '<ddBHdB' now_ms, -1 = this store's TIME; how long to keep the store, in us, 0 = as long as it
--                  takes, and no rest is kept; the format of a value that has to be made; how many overdue ones to end
--                  besides; the number of this run among its gate's, 1 = it was sent before, and not answered
--       2 costs    of each id, '<B' and so many '<Bd' kind (1 to 5), units: what its call cost, one at least; what is not
--                  named cost nothing
--       3.. ids    of the reservations to be ended
-- Returns { now_ms, outcomes: one letter an id, overdue ones presumed, overdue ones forgotten, tokens that those
--           presumed were charged, faults, more, processor time of this run in us, how long to rest before the next
--           run in us, accounts: usage subjects as reservations name them, '<B' and so many '<Bc0', settled: of every
--           S and L '<Hd' its account (from 1), the tokens that it adds to their usage; presumed likewise '<Hdd',
--           and when its call was admitted };
--       More: 1 = there may be more overdue ones, 2 = settling rests and nothing was done.
--       Outcomes: S settled, L settled late (it had been presumed), U unknown (never made, settled or forgotten),
--       C its reservation could not be read and is gone. A fault is a budget value that could not be changed.
--       Fewer outcomes than ids: the time was used up (none at all: it is not yet time), the others stand.
--
-- With a time a run ends as many as fit it, one at least, and then settling rests for as long as it has worked,
-- whoever settles: at most half of the store's time is settling's, by however many gates.
--
-- One script, so that a reservation is ended once, whoever tells of it and how often: it is gone when the budgets have
-- what it cost. What that adds to usage is told once, so a run whose answer was lost is sent again as the same run and
-- answers the same. One that nobody settles before it is due is presumed to have cost what it says, and is kept until its
-- buckets are counted no more, so that a late settlement can put that right.
--
-- Calls that were counted in the same buckets under the same names are one account: it is changed once a run.

local REMEMBERED_MS = 1800000
local LONGEST_REST_US = 1000000 -- a rest that is longer was not meant by this clock
local READING = 0.5 -- of a run's time; the rest is for writing down what it changed
local MOST_KINDS = 5
local LOOK_EVERY = 8 -- endings of accounts that are known: the processor's clock is dear

local started_s = os.clock() -- TIME stands still while a script runs
local asked_ms, most_us, format, sweep_most, run, is_again = unpack_bytes('<ddBHdB', ARGV[1])
made_in = format

local function spent_us()
  return floor((os.clock() - started_s) * 1000000)
end

-- Whether the time is used up in which a run may begin with one more.
local function is_over()
  return most_us > 0 and spent_us() >= READING * most_us
end

local function store_now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- How long settling still rests: 0 when it may work.
local function rest_us(now_us)
  local longest_us, until_us = 0, redis.call('MGET', KEYS[3], KEYS[4])
  for i = 1, 2 do
    local left_us = (tonumber(until_us[i] or 0) or 0) - now_us
    if left_us > longest_us and left_us <= LONGEST_REST_US then longest_us = left_us end
  end
  return longest_us
end

-- Has settling rest for as long as this run took.
local function note_rest(now_us)
  local worked_us = min(spent_us(), LONGEST_REST_US / 2)
  redis.call('SET', KEYS[3], string.format('%.0f', now_us + 2 * worked_us), 'PX', LONGEST_REST_US / 500)
  return worked_us
end

----------------------------------------------------------------------------------------------------- the endings

local costs, costs_at, all_costs = {}, 1, ARGV[2] -- of one call, used again

-- What the next id's call cost, by kind.
local function next_costs()
  local count, kind, units
  count, kind, units, costs_at = unpack_bytes('<BBd', all_costs, costs_at)
  for other = 1, MOST_KINDS do costs[other] = nil end
  costs[kind] = units
  for _ = 2, count do
    kind, units, costs_at = unpack_bytes('<Bd', all_costs, costs_at)
    costs[kind] = units
  end
  return costs
end

-- Ends reservations by what their calls cost: a letter each, and what each adds to the usage of its account.
local function settle()
  if #ARGV < 3 then return '', '' end
  local records, known, looked = redis.call('HMGET', KEYS[1], unpack(ARGV, 3)), 0, 1
  local letters, settled, ended, seen = {}, {}, {}, {}
  for i = 1, #records do
    if i > 1 and (#names > known or i - looked >= LOOK_EVERY) then
      known, looked = #names, i
      if is_over() then break end
    end
    local id, cost = ARGV[i + 2], next_costs()
    letters[i] = 'U'
    if records[i] and not seen[id] then
      local found = read_reservation(records[i])
      seen[id], ended[#ended + 1] = true, id
      if found then
        settled[#settled + 1] = pack('<Hd', found.account.number, charge(found, cost))
        letters[i] = found.state == PRESUMED and 'L' or 'S'
      else
        letters[i] = 'C'
      end
    end
  end
  forget(ended)
  return concat(letters), concat(settled)
end

-- Ends overdue ones: so many presumed, so many forgotten, what was charged, 1 where there may be more, and what each
-- that was presumed adds to the usage of its account.
local function sweep(now_ms)
  if sweep_most == 0 then return 0, 0, 0, 0, '' end
  local overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, sweep_most)
  if #overdue == 0 then return 0, 0, 0, 0, '' end
  local records, more = redis.call('HMGET', KEYS[1], unpack(overdue)), #overdue == sweep_most and 1 or 0
  local ended, presumed, forgotten, charged = {}, {}, 0, 0
  for i, id in ipairs(overdue) do
    if i > 1 and is_over() then
      more = 1
      break
    end
    local found = records[i] and read_reservation(records[i])
    local is_presumed = found and found.state ~= PRESUMED
    if is_presumed then
      local used = charge(found)
      presumed[#presumed + 1] = pack('<Hdd', found.account.number, used, found.admitted_ms)
      charged = charged + used
    else
      forgotten = forgotten + 1
    end
    if is_presumed and found.forgotten_ms > now_ms then
      write_presumed(id, found, records[i])
    else
      ended[#ended + 1] = id
    end
  end
  forget(ended)
  return #presumed, forgotten, charged, more, concat(presumed)
end

-- What this run answered when it was sent before; nil where it never ran, or ended nothing.
local function answered()
  local last = is_again == 1 and redis.call('GET', KEYS[5])
  return last and unpack_bytes('<d', last) == run and cmsgpack.unpack(sub(last, 9))
end

local function remember(reply)
  redis.call('SET', KEYS[5], pack('<d', run) .. cmsgpack.pack(reply), 'PX', REMEMBERED_MS)
end

local before = answered()
if before then return before end
local now_us = store_now_us()
local now_ms = asked_ms >= 0 and asked_ms or floor(now_us / 1000)
local still_us = most_us > 0 and rest_us(now_us) or 0
if still_us > 0 then return { now_ms, '', 0, 0, 0, 0, 2, spent_us(), still_us, {}, '', '' } end
local outcomes, settled = settle()
local presumed, forgotten, charged, more, swept = sweep(now_ms)
for _, account in pairs(accounts) do write_account(account) end
write_values(now_ms)
local worked_us = most_us > 0 and note_rest(now_us) or 0
local reply = { now_ms, outcomes, presumed, forgotten, charged, faults, more, 0, worked_us, names, settled, swept }
if #settled + #swept > 0 then remember(reply) end
reply[8] = spent_us()
return reply
