-- A part of take.lua: values and reservations as gates of the release before read and write them. A value of format 1 is
-- turned into one of format 2 when it is read, and back when it is written, if that is the format to write.
--
-- A value: the byte 1, then SECTION1 id, newest bucket, units in it, units in all (UNITS1_MAX: so many or more), number
--   of older entries; then ENTRY1 bucket mod 256, units, the oldest first. Ids: 1 to 3 as windows of calls, 4 a day of
--   96 x 15 minutes, 5 the hour of tokens, 133 what of 5 is held, by buckets.
-- A reservation: RESERVATION1 terms, state, tokens charged so far, ceiling, presumed, when it is forgotten; a byte and so
--   many HELD1 id, buckets, bucket, key; a byte and so many usage hashes '<Bc0'; when it was made '<d'.
--
-- What is 30 minutes long here is written to the later of its quarters that has begun: it is free again no earlier.

-- One function, because it is not needed long: what it is made of is only made when it is called.
local function format1()
  local SECTION1, SECTION1_BYTES, ENTRY1, ENTRY1_BYTES = '<BI6I4I4B', 16, '<BI4', 5
  local RESERVATION1, HELD1_ID = '<Hc0BI4I4I4d', 5
  local UNITS1_MAX = 4000000000 -- of a bucket, and of what a section says that all hold
  local SLOTS1 = { 1, 2, 3, 4, 19 }
  local IDS1 = { 1, 2, 3, 4, [19] = 5 }
  local DAY1, HELD1, QUARTER_MS, TOKENS1 = 4, 133, 900000, 19

  -- The buckets of a section, { bucket, units, .. } the oldest first, and their sum; nil where its entries contradict it.
  local function buckets_of(value, first, entry, bytes, newest, newest_units, older)
    local buckets, sum, before = {}, newest_units, 256
    for i = 1, older do
      local remainder, units = unpack_bytes(entry, value, first + (i - 1) * bytes)
      local age = (newest - remainder) % 256
      if age == 0 or age >= before then return nil end
      buckets[2 * i - 1], buckets[2 * i], sum, before = newest - age, units, sum + units, age
    end
    buckets[2 * older + 1], buckets[2 * older + 2] = newest, newest_units
    return buckets, sum
  end

  -- Writes the entries of all buckets but the last, which is the newest.
  local function entries_of(buckets, entry, most)
    local parts = {}
    for i = 1, #buckets - 2, 2 do parts[#parts + 1] = pack(entry, buckets[i] % 256, math.min(most, buckets[i + 1])) end
    return concat(parts)
  end

  -- Puts the units of buckets into others, of which several may be the same.
  local function moved(buckets, to)
    local into, k = {}, 0
    for i = 1, #buckets, 2 do
      local bucket = to(buckets[i])
      if k > 0 and into[k - 1] == bucket then
        into[k] = into[k] + buckets[i + 1]
      else
        into[k + 1], into[k + 2] = bucket, buckets[i + 1]
        k = k + 2
      end
    end
    return into
  end

  local function day_from1(buckets, sum)
    local halves = moved(buckets, function(quarter) return floor(quarter / 2) end)
    local k = #halves
    return pack(SECTION, 0, DAY1, halves[k - 1], halves[k], sum, 0, k / 2 - 1) .. entries_of(halves, ENTRY, sum)
  end

  -- The same in format 2, and what is held by buckets; '' where the value is corrupt.
  local function from_format1(value)
    local parts, held, at, last_id, length = { '\2' }, {}, 2, 0, #value
    while at <= length do
      local first = at + SECTION1_BYTES
      if first > length + 1 then return '' end
      local id, newest, units, total, older = unpack_bytes(SECTION1, value, at)
      at = first + older * ENTRY1_BYTES
      if id <= last_id or at > length + 1 or units == 0 then return '' end
      last_id = id
      local slot, buckets, sum = SLOTS1[id], nil, nil
      if id == HELD1 or id == DAY1 or slot and total >= UNITS1_MAX then
        buckets, sum = buckets_of(value, first, ENTRY1, ENTRY1_BYTES, newest, units, older)
        if not buckets or total ~= math.min(sum, UNITS1_MAX) then return '' end
      end
      if id == DAY1 then
        parts[#parts + 1] = day_from1(buckets, sum)
      elseif slot then
        local entries = string.gsub(sub(value, first, at - 1), '.....', '%0\0\0')
        parts[#parts + 1] = pack(SECTION, floor(slot / 16), slot % 16, newest, units, sum or total, 0, older) .. entries
      elseif id == HELD1 then
        held = buckets
      end
    end
    return concat(parts), held
  end

  -- Sums up what of a window of tokens is held; what it does not count any more is not.
  local function note_held1(subject)
    local window, held, counted = subject.windows[TOKENS1], subject.buckets, {}
    subject.buckets = counted
    if not window then return end
    for i = 1, #held, 2 do
      if held[i] >= window.current - window.span.n and held[i + 1] > 0 then
        counted[#counted + 1], counted[#counted + 2] = held[i], held[i + 1]
        window.held = window.held + held[i + 1]
      end
    end
    window.held = math.min(window.held, window.total)
    window.held_before = window.held
  end

  -- The section of what is held: what was, and in the current bucket what has come to it; '' where nothing is.
  local function held_to1(subject)
    local window, buckets = subject.windows[TOKENS1], subject.buckets or {}
    local added, k, sum = window.held - (window.held_before or 0), #buckets, 0
    if added > 0 and k > 0 and buckets[k - 1] >= window.current then
      buckets[k] = buckets[k] + added
    elseif added > 0 then
      buckets[k + 1], buckets[k + 2], k = window.current, added, k + 2
    end
    if k == 0 then return '' end
    for i = 2, k, 2 do sum = sum + math.min(UNITS1_MAX, buckets[i]) end
    return pack(SECTION1, HELD1, buckets[k - 1], math.min(UNITS1_MAX, buckets[k]), math.min(UNITS1_MAX, sum), k / 2 - 1)
      .. entries_of(buckets, ENTRY1, UNITS1_MAX)
  end

  local function day_to1(buckets)
    local now = floor(now_ms / QUARTER_MS)
    return moved(buckets, function(half)
      return 2 * half == now and now or 2 * half + 1
    end)
  end

  -- A value of format 2 as one of format 1; as it is where it counts what format 1 does not know.
  local function to_format1(value, subject)
    local parts, at, held = { '\1' }, 2, ''
    while at <= #value do
      local kind, id, newest, units, total, _, older = unpack_bytes(SECTION, value, at)
      local first, slot = at + SECTION_BYTES, kind * 16 + id
      at = first + older * ENTRY_BYTES
      local id1, entries = IDS1[slot], nil
      if not id1 then return value end
      if id1 == DAY1 or total >= UNITS1_MAX then
        local buckets = buckets_of(value, first, ENTRY, ENTRY_BYTES, newest, units, older)
        if id1 == DAY1 then buckets = day_to1(buckets) end
        newest, units, entries = buckets[#buckets - 1], buckets[#buckets], entries_of(buckets, ENTRY1, UNITS1_MAX)
        older = #buckets / 2 - 1
      else
        entries = string.gsub(sub(value, first, at - 1), '(.....)..', '%1')
      end
      local k = #parts
      parts[k + 1] = pack(SECTION1, id1, newest, math.min(UNITS1_MAX, units), math.min(UNITS1_MAX, total), older)
      parts[k + 2] = entries
      if slot == TOKENS1 then held = held_to1(subject) end
    end
    return concat(parts) .. held
  end

  -- A reservation of tokens, as far as its buckets.
  local function reservation1(tokens, ceiling, presumed, forgotten_ms, terms)
    return pack(
      RESERVATION1, #terms, terms, byte('R'), math.min(UNITS1_MAX, tokens), math.min(UNITS1_MAX, ceiling),
      math.min(UNITS1_MAX, presumed), forgotten_ms
    )
  end

  -- What it ends with. `held`, `usage`: as they stand in one of format 2.
  local function ending1(held, usage)
    local names, at = {}, 2
    for i = 1, byte(usage, 1) do
      local name
      name, at = unpack_bytes('<Bc0', usage, at)
      name = ARGV[8] .. name
      names[i] = pack('<Bc0', #name, name)
    end
    for i = 1, #held do held[i] = string.char(HELD1_ID) .. sub(held[i], 3) end
    return string.char(#held) .. concat(held) .. string.char(#names) .. concat(names) .. pack('<d', now_ms)
  end

  return { from = from_format1, note_held = note_held1, to = to_format1, reservation = reservation1, ending = ending1 }
end
