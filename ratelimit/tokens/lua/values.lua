#!lua
-- values: change buckets of budget values in their bytes. Stands before settle.lua, whose script it is part of.
--
-- The layouts, in formats 1 and 2, are written down in take.lua; a value keeps the format it has. Each value is read
-- once a run, when something that is counted there is looked at, and written once, at the run's end. A section is
-- changed as what it is: a few numbers, and its older entries in their bytes, so what a change costs does not grow with
-- what else a value holds.

local byte, char, sub, floor, concat, sort = string.byte, string.char, string.sub, math.floor, table.concat, table.sort
local max, min, pack, unpack_bytes = math.max, math.min, struct.pack, struct.unpack

local TOKENS, HELD_IDS = 1, 128 -- a kind; format 1: added to a window's id for its units that are held
-- Of each format: a section, an entry and how long they are, the most units of a bucket, of all.
local VALUES = {
  { section = '<BI6I4I4B', section_bytes = 16, entry = '<BI4', entry_bytes = 5, most = 4000000000, most_in_all = 4000000000 },
  {
    section = '<BBI6I6I6I6B', section_bytes = 27, entry = '<BI6', entry_bytes = 7,
    most = 9999999999999, most_in_all = 99999999999999,
  },
}
local made_in = 1 -- the format of a value that has to be made; settle.lua is told which
local LONGEST_TTL_MS = 400 * 24 * 3600 * 1000

-- Where a section of this window stands in the bytes of a value: its numbers, and from where to where it goes; or nil
-- and where it would stand; or false where the value is corrupt.
local function find_section(value, wanted)
  local layout, bytes, at, length = value.layout, value.bytes, 2, #value.bytes
  while at <= length do
    local first = at + layout.section_bytes
    if first > length + 1 then return false end
    local id, newest, newest_units, total, held, older
    if layout == VALUES[1] then
      id, newest, newest_units, total, older = unpack_bytes(layout.section, bytes, at)
    else
      local kind, window
      kind, window, newest, newest_units, total, held, older = unpack_bytes(layout.section, bytes, at)
      id = kind * 256 + window
    end
    local after = first + older * layout.entry_bytes
    if after > length + 1 then return false end
    if id == wanted then
      return {
        id = id, layout = layout, newest = newest, newest_units = newest_units, total = total, held = held,
        older = older, entries = sub(bytes, first, after - 1), at = at, after = after,
      }
    end
    if id > wanted then return nil, at end
    at = after
  end
  return nil, at
end

local function entry_of(section, place)
  local layout = section.layout
  local remainder, units = unpack_bytes(layout.entry, section.entries, place * layout.entry_bytes + 1)
  return (section.newest - remainder) % 256, units
end

-- The place of a bucket's entry among those of a section and its units; where it has none, the place for it.
local function find_entry(section, bucket)
  local low, high, age = 0, section.older - 1, section.newest - bucket
  while low <= high do
    local middle = floor((low + high) / 2)
    local its_age, units = entry_of(section, middle)
    if its_age == age then return middle, units end
    if its_age > age then low = middle + 1 else high = middle - 1 end
  end
  return low, nil
end

-- Puts bytes in the place of so many entries.
local function splice(section, place, count, bytes)
  local layout, entries = section.layout, section.entries
  local at = place * layout.entry_bytes
  section.entries = sub(entries, 1, at) .. bytes .. sub(entries, at + count * layout.entry_bytes + 1)
  section.older = section.older - count + #bytes / layout.entry_bytes
end

-- Makes a bucket the newest one; what lies behind it by more than the window is counted no more: take.lua refuses that.
local function bring_to(section, bucket, n)
  local newest, units = section.newest, section.newest_units
  while section.older > 0 and bucket - newest + entry_of(section, 0) > n do
    local _, dropped = entry_of(section, 0)
    section.total = section.total - dropped
    splice(section, 0, 1, '')
  end
  if units > 0 and bucket - newest <= n then
    splice(section, section.older, 0, pack(section.layout.entry, newest % 256, units))
  else
    section.total = section.total - units
  end
  section.newest, section.newest_units = bucket, 0
end

-- The newest bucket has no units any more: the one before it is the newest.
local function step_back(section)
  if section.older == 0 then
    section.total = 0
    return
  end
  local age, units = entry_of(section, section.older - 1)
  splice(section, section.older - 1, 1, '')
  section.newest, section.newest_units = section.newest - age, units
end

local function set_units(section, bucket, place, has_entry, units)
  if bucket == section.newest then
    section.newest_units = units
    if units == 0 then step_back(section) end
  else
    local bytes = units > 0 and pack(section.layout.entry, bucket % 256, units) or ''
    splice(section, place, has_entry and 1 or 0, bytes)
  end
end

-- The sum that a section's total says too small: there are more than it can say, or an older script wrote it.
local function true_total(section)
  local total = section.total
  if total < section.layout.most_in_all and total >= section.newest_units + section.older then return total end
  total = section.newest_units
  for place = 0, section.older - 1 do
    local _, units = entry_of(section, place)
    total = total + units
  end
  return total
end

-- Takes units out of a bucket, never more than are there, and adds others.
local function change_bucket(section, bucket, n, less, more)
  if bucket > section.newest or section.total == 0 then -- one without units has no newest bucket
    if more == 0 then return end
    bring_to(section, bucket, n)
  end
  local place, before = nil, section.newest_units
  if bucket < section.newest then place, before = find_entry(section, bucket) end
  local units = min(section.layout.most, max(0, (before or 0) - less) + more)
  if units == (before or 0) then return end
  section.total = section.total - (before or 0) + units
  set_units(section, bucket, place, before ~= nil, units)
end

local function section_bytes(section)
  if section.total <= 0 then return '' end
  local layout, total = section.layout, min(section.layout.most_in_all, section.total)
  local numbers
  if layout == VALUES[1] then
    numbers = pack(layout.section, section.id, section.newest, section.newest_units, total, section.older)
  else
    local id, held = section.id, max(0, min(section.held, total))
    numbers = pack(
      layout.section, floor(id / 256), id % 256, section.newest, section.newest_units, total, held, section.older
    )
  end
  return numbers .. section.entries
end

local values, faults = {}, 0 -- budget values by key, each read once and written once

local function value_of(key)
  local value = values[key]
  if not value then
    local stored = redis.pcall('GET', key)
    if type(stored) == 'table' then stored = '?' end -- it is something else
    local bytes = stored or char(made_in)
    value = { stored = stored, bytes = bytes, layout = VALUES[byte(bytes, 1)], until_ms = 0, sections = {} }
    values[key] = value
  end
  return value
end

-- A section of a value, taken out of its bytes the first time; where there is none, one without units.
local function section_of(value, id, bucket)
  local section, at = value.sections[id], nil
  if section == nil then
    section, at = find_section(value, id)
    section = section or section == nil and {
      id = id, layout = value.layout, newest = bucket, newest_units = 0, total = 0, held = 0, older = 0, entries = '',
      at = at, after = at,
    }
    if section then section.total = true_total(section) end
    value.sections[id] = section
  end
  return section
end

-- Changes one section of a value; false where the value is corrupt.
local function change_section(value, id, held, less, more, freed)
  local section = section_of(value, id, held.bucket)
  if not section then return false end
  if (less > 0 or more > 0) and held.bucket >= section.newest - held.n then
    change_bucket(section, held.bucket, held.n, less, more)
  end
  section.held = section.held and section.held - freed
  return true
end

-- Format 1: holds so much less in a bucket, and the rest in the newest ones: a gate that wrote format 1 where another had
-- written 2 has put all that was held into one. False where the value is corrupt.
local function free_held(value, held, freed)
  local counted = section_of(value, held.old_window, held.bucket)
  local section = section_of(value, held.old_window + HELD_IDS, held.bucket)
  if not section then return false end
  if held.bucket < counted.newest - held.n then return true end
  local before = section.total
  change_bucket(section, held.bucket, held.n, freed, 0)
  local rest = freed - (before - section.total)
  while rest > 0 and section.total > 0 do
    local units = min(rest, section.newest_units)
    change_bucket(section, section.newest, held.n, units, 0)
    rest = rest - units
  end
  return true
end

-- Changes what calls count in one budget by `sums`: units less, units more, and units that are held no more.
local function change_value(held, sums, until_ms)
  local value, is_done = value_of(held.key), false
  if value.layout == VALUES[2] then
    is_done = change_section(value, held.kind * 256 + held.window, held, sums.less, sums.more, sums.freed)
  elseif value.layout and held.old_window then
    is_done = change_section(value, held.old_window, held, sums.less, sums.more, 0)
      and free_held(value, held, sums.freed)
  elseif value.layout then
    is_done = true -- format 1 has no such budget
  end
  if not is_done then
    faults = faults + 1
    value.layout = nil
  end
  value.until_ms = max(value.until_ms, until_ms)
end

-- The bytes of a value, those of the sections that were taken out put in again.
local function value_bytes(value)
  local sections, parts, at = {}, {}, 1
  for _, section in pairs(value.sections) do sections[#sections + 1] = section end
  sort(sections, function(one, other) return one.id < other.id end)
  for i = 1, #sections do
    parts[2 * i - 1], parts[2 * i] = sub(value.bytes, at, sections[i].at - 1), section_bytes(sections[i])
    at = sections[i].after
  end
  parts[#parts + 1] = sub(value.bytes, at)
  return concat(parts)
end

local function write_value(key, value, now_ms)
  local bytes = value.layout and value_bytes(value)
  if not bytes or bytes == value.stored then return end
  if value.stored then
    if #bytes > 1 then redis.call('SET', key, bytes, 'KEEPTTL') else redis.call('DEL', key) end
  elseif #bytes > 1 and value.until_ms > now_ms then
    redis.call('SET', key, bytes, 'PX', min(LONGEST_TTL_MS, floor(value.until_ms - now_ms)))
  end
end

local function write_values(now_ms)
  for key, value in pairs(values) do write_value(key, value, now_ms) end
end
