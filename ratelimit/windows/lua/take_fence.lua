-- A part of take.lua: which calls of a batch are still decided on records as they are, where the epoch has moved.

-- The set of record references changed after `base`, or nil when the feed cannot prove that it tells all:
-- it must hold the base epoch itself and every counter from there to the epoch in force.
local function changed_since(base, current)
  local function counter_of(epoch) return tonumber(string.match(epoch, '^(%d+)%-')) end
  local from, to = counter_of(base), counter_of(current)
  if not from or not to or to <= from or to - from > FEED_READ_MAX then return nil end
  local entries = redis.call('XRANGE', KEYS[1], from .. '-0', '+', 'COUNT', FEED_READ_MAX + 1)
  if #entries ~= to - from + 1 then return nil end
  local changed, last = {}, nil
  for i, entry in ipairs(entries) do
    last = {}
    for j = 1, #entry[2], 2 do last[entry[2][j]] = entry[2][j + 1] end
    if entry[1] ~= (from + i - 1) .. '-0' or not last.refs then return nil end
    if i == 1 then
      if last.epoch ~= base then return nil end
    else
      for ref in string.gmatch(last.refs, '%S+') do changed[ref] = true end
    end
  end
  if last.epoch ~= current then return nil end
  return changed
end

-- Notes the charges whose records changed. One that names none cannot be cleared.
local function mark_stale(charges, lines, changed)
  local number = 0
  for line in string.gmatch(lines, '([^\n]*)\n') do
    number = number + 1
    local charge = charges[number]
    charge.stale = not string.find(line, '%S')
    for ref in string.gmatch(line, '%S+') do charge.stale = charge.stale or changed[ref] end
  end
end
