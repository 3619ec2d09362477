-- A part of take.lua: windows as they stand now, and the sections of values that keep them.

-- When a month begins that is counted from January 1970.
local function month_start_ms(month)
  local year, since_march = 1970 + floor(month / 12), (month % 12 + 10) % 12
  if since_march >= 10 then year = year - 1 end
  local days = 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400)
  return (days + floor((153 * since_march + 2) / 5) - 719468) * 86400000
end

local function bucket_of(span, at_ms)
  if span ~= MONTH then return floor(at_ms / span.bucket_ms) end
  local month = floor(at_ms / MONTH_MS) -- one off at most
  if month_start_ms(month + 1) <= at_ms then return month + 1 end
  if month_start_ms(month) > at_ms then return month - 1 end
  return month
end

-- When units of a bucket are free again.
local function release_ms(span, bucket)
  if span == MONTH then return month_start_ms(bucket + 1) end
  return (bucket + span.n + 1) * span.bucket_ms
end

-- Drops the entries that are no longer counted; false when an entry contradicts the section.
local function drop_old(window, value)
  local n, newest, first, older, total = window.span.n, window.newest, window.first, window.older, window.total
  local oldest_age, before = n - (window.current - newest), n + 1
  while older > 0 do
    local remainder, units = unpack_bytes(ENTRY, value, first)
    local age = (newest - remainder) % 256
    if age == 0 or age >= before then return false end
    if age <= oldest_age then break end
    before, total, first, older = age, total - units, first + ENTRY_BYTES, older - 1
  end
  window.first, window.older, window.total = first, older, total
  local older_units = total - window.newest_units
  return older_units == 0 and older == 0 or older_units > 0 and older > 0
end

-- The units of a section whose total says only that there are very many: calls may turn out to cost more than budgets have.
local function sum_of(value, sum, at, older)
  for _ = 1, older do
    local _, units = unpack_bytes(ENTRY, value, at)
    sum, at = sum + units, at + ENTRY_BYTES
  end
  return sum
end

-- A window at the present: nothing but time passing frees units, so a clock that lies before the newest bucket
-- is not followed. Nil when the section is corrupt.
local function new_window(slot, value, newest, newest_units, total, held, first, older)
  local span = SPANS[slot % 16]
  local current = span.current
  if not current then
    current = bucket_of(span, now_ms)
    span.current = current
  end
  local stepped = newest > current
  if stepped then current = newest end
  if total >= TOTAL_MAX then total = sum_of(value, newest_units, first, older) end
  if newest < current - span.n or total == 0 then newest, newest_units, total, older = current, 0, 0, 0 end
  local window = {
    slot = slot, kind = floor(slot / 16), span = span, current = current, stepped = stepped, newest = newest,
    newest_units = newest_units, total = total, held = held, first = first, older = older,
    before = 0, reset = 0, used = false, asked_need = false, asked_retry = false,
  }
  if older > 0 or newest_units ~= total then
    if not drop_old(window, value) then return nil end
    total = window.total
  end
  window.before = total
  if held > total then window.held = total end
  if total > 0 then window.reset = release_ms(span, newest) end
  return window
end

-- Reads the windows of a value into `windows`, by slot; false when it is corrupt.
local function read_windows(value, windows)
  local at, last, length = 2, -1, #value
  if byte(value, 1) ~= 2 then return false end
  while at <= length do
    local first = at + SECTION_BYTES
    if first > length + 1 then return false end
    local kind, id, newest, units, total, held, older = unpack_bytes(SECTION, value, at)
    local place = kind * 256 + id
    at = first + older * ENTRY_BYTES
    if place <= last or at > length + 1 or units == 0 or held > total then return false end
    last = place
    if SPANS[id] and kind < 6 then -- what a later version counts is passed over
      local slot = kind * 16 + id
      local window = new_window(slot, value, newest, units, total, held, first, older)
      if not window then return false end
      windows[slot] = window
    end
  end
  return true
end

-- When the window will have room for `cost`, which it has not now and which is not above `limit`.
-- Calls of one batch often ask the same again; appending units never changes the answer for the same need.
local function retry_at_ms(window, value, cost, limit)
  local need = window.total + cost - limit
  if window.asked_need == need then return window.asked_retry end
  local bucket, left, at = window.current, need, window.first
  for _ = 1, window.older do
    local remainder, units = unpack_bytes(ENTRY, value, at)
    left, at = left - units, at + ENTRY_BYTES
    if left <= 0 then
      bucket = window.newest - (window.newest - remainder) % 256
      break
    end
  end
  if left > 0 and left <= window.newest_units then bucket = window.newest end
  window.asked_need, window.asked_retry = need, release_ms(window.span, bucket)
  return window.asked_retry
end

-- Gives units back, those that were counted first before later ones: what is left is counted for the longest.
local function give_back(subject, window, units)
  local value, first, older, left = subject.value, window.first, window.older, units
  while left > 0 and older > 0 do
    local remainder, counted = unpack_bytes(ENTRY, value, first)
    if counted > left then
      subject.value = sub(value, 1, first - 1) .. pack(ENTRY, remainder, counted - left) .. sub(value, first + ENTRY_BYTES)
      left = 0
    else
      left, first, older = left - counted, first + ENTRY_BYTES, older - 1
    end
  end
  local newest = math.min(left, window.newest_units)
  local stored = units - left + newest
  local before, total = window.before - stored, math.max(0, window.total - units)
  window.first, window.older, window.newest_units = first, older, window.newest_units - newest
  window.before, window.total, window.reset = before, total, 0
  if total > before then
    window.reset = release_ms(window.span, window.current)
  elseif total > 0 then
    window.reset = release_ms(window.span, window.newest)
  else
    local current = window.span.current
    window.current, window.newest = current, current -- nothing lies ahead of the clock any more
  end
  window.held, window.asked_need = math.min(window.held, total), false
  subject.changed = true
end
