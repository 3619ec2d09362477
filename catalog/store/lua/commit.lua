#!lua
-- Writes one change of the catalog, or nothing.
--
-- KEYS  1 epoch, 2 feed, 3 audit, 4 index of tenants, 5 the agreed number of cells; then two for each
--       change: its record, its kind's index; then usage to retire
-- ARGV  1 16 random hexadecimal characters, 2 number of changes, 3 how long audit entries are kept in ms,
--       4 actor, 5 action, 6 target, 7 tenant, 8 request id, 9 detail (JSON),
--       10 the last ms of the store's clock at which anything may be written, 0: any, 11 the writer's number of cells;
--       then five for each change: put | delete | check | room | below | bury, reference, expected version (0: there is no such
--       record; -1: one that cannot be read, and behind a space the SHA-1 of what is stored where that is a string: its
--       version alone may read well), record id, JSON of the record to put, or of one to delete or check when it must
--       have been made in ms, empty: whenever;
--       of a room the first key is a group, and instead of a version stands how many records it may have at most;
--       of a below likewise, of the ids in its index that begin with its record id, those of the group not counted;
--       of a bury the keys are a tombstone and its tenant's index of them, the record id is its place there (13 digits of
--       the ms at which it was made, and behind a colon the id), and the JSON is what the tombstone says
-- Returns {1, epoch in force} when everything is written, {0, reference, version found} when nothing is, because a
--         record is another than expected, or too many are below, {2, reference, records found} when nothing is, because a group has too many,
--         {3, '', 0} when nothing is, because it is too late, {4, number, 0} when nothing is, because another number of
--         cells is agreed on
--
-- Groups tell what belongs to a tenant: each record stands in <its index>:<tenant> for its `tenant` or each of its
-- `tenants`, and in <its index>:allowed:<tenant> for each of its `allowed_tenants`. Their names are made here, because
-- only the stored record tells which groups it was in.
--
-- Atomic, because every expectation must hold at the instant of the writes, and because a reader that sees the new
-- records must see the new epoch; what no gate reads moves none. The epoch counts on from the larger of the epoch's and
-- the feed's counter, so that the feed takes the entry even when one of the two was lost.
-- One caller: catalog/store/store.py

local EPOCH, FEED, AUDIT, TENANTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local CHANGES = tonumber(ARGV[2])
local FEED_LENGTH = 10000
local RETIRED_S = 397 * 24 * 3600 -- 13 months
local GONE_S = 3600 -- longer than a gate keeps what it could not write
local UNREAD = { user = true, model = true, place = true } -- kinds that no gate reads: they move no epoch
local UNGROUPED = { host = true, server = true, route = true } -- kinds that are no tenant's, some of them long
local REFS_MAX = 100 -- of one entry; for more a counter is left out: nobody can tell which, and all may have changed

local function change(n)
  local keys, args = 5 + 2 * (n - 1), 11 + 5 * (n - 1)
  return {
    record = KEYS[keys + 1], index = KEYS[keys + 2],
    act = ARGV[args + 1], ref = ARGV[args + 2], kind = string.match(ARGV[args + 2], '^%l+'), expected = tonumber(string.match(ARGV[args + 3], '^%S+')),
    damaged = string.match(ARGV[args + 3], ' (%x+)$'),
    id = ARGV[args + 4], json = ARGV[args + 5],
  }
end

local function parsed(json)
  local ok, value = pcall(cjson.decode, json)  -- what is no string gave an error, which is no JSON either
  return ok and type(value) == 'table' and value or nil
end

-- What matters of a record here; of one without groups that is what stands at its end, and the rest is not read.
local function facts_of(json, kind)
  if UNGROUPED[kind] and type(json) == 'string' then
    local version, made = string.match(string.sub(json, -80), '"version":(%d+),"created_at_ms":(%d+)}$')
    if version then return { version = version, created_at_ms = tonumber(made) } end
  end
  return parsed(json)
end

local function stored(record, kind)
  local json = redis.pcall('GET', record)
  if not json then return nil, 0 end
  local value = facts_of(json, kind)
  return value, value and tonumber(value.version) or -1
end

-- What a change meets: the record that is stored, nil where it is no table, and its version.
local function meet(c)
  c.old, c.found = stored(c.record, c.kind)
  local json = c.damaged and redis.pcall('GET', c.record)
  if type(json) == 'string' and redis.sha1hex(json) == c.damaged then c.old, c.found = nil, -1 end
end

local function groups_of(value, index)
  local groups = {}
  local function add(owners, prefix)
    for _, owner in ipairs(type(owners) == 'table' and owners or {owners}) do
      groups[#groups + 1] = index .. ':' .. prefix .. tostring(owner)
    end
  end
  add(value.tenant, '')
  add(value.tenants, '')
  add(value.allowed_tenants, 'allowed:')
  return groups
end

local function every_group(index)  -- for a record that does not tell any more which were its own
  local groups = {}
  for _, tenant in ipairs(redis.call('ZRANGE', TENANTS, 0, -1)) do
    groups[#groups + 1] = index .. ':' .. tenant
    groups[#groups + 1] = index .. ':allowed:' .. tenant
  end
  return groups
end

local function feed_counter()
  if redis.call('EXISTS', FEED) == 0 then return 0 end
  local facts = redis.call('XINFO', 'STREAM', FEED)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then return tonumber(string.match(facts[i + 1], '^%d+')) end
  end
end

-- Tells readers what changed, and returns the epoch to be set; the present one where they read none of it.
local function tell(refs, is_read)
  local before = redis.call('GET', EPOCH) or ''
  if not is_read then return before end
  local counter, step = tonumber(string.match(before, '^(%d+)%-%x+$') or 0), #refs > REFS_MAX and 2 or 1
  local counted = string.format('%.0f', math.max(counter, feed_counter()) + step)
  local epoch = counted .. '-' .. ARGV[1]
  local told = step == 1 and table.concat(refs, ' ') or ''
  redis.call('XADD', FEED, 'MAXLEN', FEED_LENGTH, counted .. '-0', 'epoch', epoch, 'refs', told)
  return epoch
end

local function write(c)
  if not UNGROUPED[c.kind] then
    local left = c.found == -1 and every_group(c.index) or c.old and groups_of(c.old, c.index) or {}
    for _, group in ipairs(left) do redis.call('ZREM', group, c.id) end
  end
  if c.act == 'put' then
    redis.call('SET', c.record, c.json)
    redis.call('ZADD', c.index, 0, c.id)
    local joined = UNGROUPED[c.kind] and {} or groups_of(cjson.decode(c.json), c.index)
    for _, group in ipairs(joined) do redis.call('ZADD', group, 0, c.id) end
  else
    redis.call('DEL', c.record)
    redis.call('ZREM', c.index, c.id)
  end
end

-- Usage of what is no more: kept for its time, and by whom it may be read. Where there is none, a gate may still have its
-- first calls to write down: count.lua heeds the mark.
local function retire(usage)
  if redis.call('EXPIRE', usage, RETIRED_S) == 1 then
    redis.pcall('HSET', usage, 'tenant', ARGV[7])
  else
    redis.call('SET', usage .. ':gone', ARGV[7], 'EX', GONE_S)
  end
end

-- What stays of a deleted key, for as long as its usage: places whose time is over leave the index here, some at a time.
-- An index that is none is made again: nothing of this may stand in the way of a key's end.
local function bury(c)
  redis.call('SET', c.record, c.json, 'EX', RETIRED_S)
  if type(redis.pcall('ZADD', c.index, 0, c.id)) == 'table' then
    redis.call('DEL', c.index)
    redis.call('ZADD', c.index, 0, c.id)
  end
  local over = string.format('(%013.0f', tonumber(string.sub(c.id, 1, 13)) - RETIRED_S * 1000)
  for _, place in ipairs(redis.call('ZRANGE', c.index, '-', over, 'BYLEX', 'LIMIT', 0, 100)) do
    redis.call('ZREM', c.index, place)
  end
  redis.call('EXPIRE', c.index, RETIRED_S)
end

local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whether the stored record is the one that is meant: one that was deleted and made again may have its version.
local function is_same(c)
  local old = c.old and c.old.created_at_ms
  if not old or c.json == '' then return true end
  if c.act == 'put' then return facts_of(c.json, c.kind).created_at_ms == old end
  return tonumber(c.json) == old
end

-- How many ids of a kind begin so, less those of a group; no id has the byte FF.
local function count_below(c)
  local first, last = '[' .. c.id, '(' .. c.id .. '\255'
  return redis.call('ZLEXCOUNT', c.index, first, last) - redis.call('ZLEXCOUNT', c.record, first, last)
end

local function record_act()
  local now_ms = clock_ms()
  local oldest = string.format('%.0f', now_ms - ARGV[3])
  redis.call('XADD', AUDIT, 'MINID', '~', oldest, '*', 'time_ms', string.format('%.0f', now_ms),
    'actor', ARGV[4], 'action', ARGV[5], 'target', ARGV[6], 'tenant', ARGV[7], 'request_id', ARGV[8],
    'detail', ARGV[9])
end

local LAST_MS = tonumber(ARGV[10])
if LAST_MS > 0 and clock_ms() > LAST_MS then return {3, '', 0} end
local cells = redis.call('GET', KEYS[5])
if cells and cells ~= ARGV[11] then return {4, cells, 0} end

local changed, buried, refs = {}, {}, {}
for n = 1, CHANGES do
  local c = change(n)
  if c.act == 'room' then
    local count = redis.call('ZCARD', c.record)
    if count > c.expected then return {2, c.ref, count} end
  elseif c.act == 'below' then
    local count = count_below(c)
    if count > c.expected then return {0, c.ref, count} end
  elseif c.act == 'bury' then
    buried[#buried + 1] = c
  else
    meet(c)
    if c.found ~= c.expected or not is_same(c) then return {0, c.ref, c.found} end
  end
  if c.act == 'put' or c.act == 'delete' then
    changed[#changed + 1] = c
    if not UNREAD[c.kind] then refs[#refs + 1] = c.ref end
  end
end

local is_read = #refs > 0 or #changed == 0
local epoch = tell(refs, is_read)
record_act()  -- both streams before the records: a stream damaged by hand stops the script while nothing is in force
if is_read then redis.call('SET', EPOCH, epoch) end
for _, c in ipairs(changed) do write(c) end
for _, c in ipairs(buried) do bury(c) end
for n = 5 + 2 * CHANGES + 1, #KEYS do retire(KEYS[n]) end
return {1, epoch}
