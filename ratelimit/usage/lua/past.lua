#!lua
-- past: what a subject was used in minutes, hours and days that are over, packed in one string. Stands before count.lua,
-- which is the one script of both.
--
-- A byte PAST, the day on which it was last tidied (three bytes), then of minutes, hours and days each: SECTION number of
-- the first since the Unix epoch, how many, bits of calls, bits of tokens; then so many numbers of as few bytes as both
-- need, little-endian: calls in the low bits, above them tokens. Where SIGNED is added to their bits, tokens n stand as
-- 2 * n and -n as 2 * n - 1. Where both need more than 52 bits, each is of whole bytes.

local sub, rep, concat = string.sub, string.rep, table.concat
local pack, unpack_bytes, floor, max, min = struct.pack, struct.unpack, math.floor, math.max, math.min

local PAST, PAST_HEAD, PAST_HEAD_BYTES = 1, '<BI3', 4
local SECTION, SECTION_BYTES = '<I4I2BB', 8
local KEPT = { 59, 191, 396 } -- minutes, hours and days before those that run
local AHEAD = { 1440, 191, 396 } -- and after them, where the clock has stepped back
local SIGNED = 128 -- added to the bits of tokens of which some are below 0
local BITS_MAX = 52 -- of a number that holds calls and tokens
local TOKENS_MAX, TOKEN_BITS = 2 ^ 50, 52 -- of a minute, an hour or a day, and its bits with a sign: larger ones lose digits

-- Says how the numbers of a section are laid out.
local function lay_out(section, call_bits, token_bits)
  if call_bits + token_bits > BITS_MAX then
    call_bits, token_bits = 8 * math.ceil(call_bits / 8), 8 * math.ceil(token_bits / 8)
  end
  local bytes = math.ceil((call_bits + token_bits) / 8)
  section.call_bits, section.token_bits, section.bytes = call_bits, token_bits, bytes
  section.base = 2 ^ call_bits
  section.apart = call_bits + token_bits > BITS_MAX
  section.form = section.apart and '<I' .. call_bits / 8 .. 'I' .. token_bits / 8 or '<I' .. bytes
end

local function new_section(i, first, count, call_bits, token_bits, entries, signed)
  local section = {
    i = i, kept = KEPT[i], ahead = AHEAD[i], first = first, count = count, entries = entries, signed = signed,
  }
  lay_out(section, call_bits, token_bits)
  return section
end

local function read_number(section, place)
  local at = place * section.bytes + 1
  local calls, tokens = unpack_bytes(section.form, section.entries, at)
  if not section.apart then calls, tokens = calls % section.base, floor(calls / section.base) end
  if section.signed then tokens = tokens % 2 == 0 and tokens / 2 or -(tokens + 1) / 2 end
  return calls, tokens
end

-- Tokens as they are written.
local function plain(tokens, signed)
  if not signed then return tokens end
  return tokens < 0 and -2 * tokens - 1 or 2 * tokens
end

local function pack_number(section, calls, tokens)
  tokens = plain(tokens, section.signed)
  if section.apart then return pack(section.form, calls, tokens) end
  return pack(section.form, calls + tokens * section.base)
end

local function bits_of(number)
  local _, exponent = math.frexp(number)
  return number > 0 and exponent or 0
end

local function is_room(section, calls, tokens)
  if tokens < 0 and not section.signed then return false end
  return calls < section.base and plain(tokens, section.signed) < 2 ^ section.token_bits
end

-- Lays a section out anew for so many bits. What bits its bytes have to spare then are the larger number's.
local function lay_out_anew(section, call_bits, token_bits, signed)
  call_bits = max(1, call_bits)
  local spare = min(BITS_MAX, 8 * math.ceil((call_bits + token_bits) / 8)) - call_bits - token_bits
  if token_bits == 0 then call_bits = call_bits + max(0, spare) else token_bits = token_bits + max(0, spare) end
  local wide, parts = new_section(section.i, 0, 0, call_bits, token_bits, '', signed), {}
  for place = 0, section.count - 1 do parts[place + 1] = pack_number(wide, read_number(section, place)) end
  lay_out(section, call_bits, token_bits)
  section.entries, section.signed = concat(parts), signed
end

-- Lays a section out so that these fit too.
local function widen(section, calls, tokens)
  local signed, had_bits = section.signed or tokens < 0, section.token_bits
  if signed and not section.signed and had_bits > 0 then had_bits = had_bits + 1 end
  local token_bits = max(min(TOKEN_BITS, had_bits), bits_of(plain(tokens, signed))) -- what it had may be spare
  lay_out_anew(section, max(section.call_bits, bits_of(calls)), token_bits, signed)
end

-- Lays a section out in fewer bytes where what needed them is over.
local function narrow(section)
  local call_bits, token_bits, signed = 1, 0, false
  for place = 0, section.count - 1 do
    local calls, tokens = read_number(section, place)
    call_bits, token_bits = max(call_bits, bits_of(calls)), max(token_bits, bits_of(math.abs(tokens)))
    signed = signed or tokens < 0
  end
  if signed then token_bits = token_bits + 1 end
  if math.ceil((call_bits + token_bits) / 8) < section.bytes then
    lay_out_anew(section, call_bits, token_bits, signed)
  end
end

-- Drops what is further from the present than the section keeps: a clock may have been far ahead.
local function trim(section, present)
  local first, last = max(section.first, present - section.kept), section.first + section.count - 1
  last = min(last, present + section.ahead)
  if section.count == 0 or first > last then
    section.first, section.count, section.entries = present, 0, ''
  elseif last - first + 1 < section.count then
    local from = (first - section.first) * section.bytes
    section.entries = sub(section.entries, from + 1, from + (last - first + 1) * section.bytes)
    section.first, section.count = first, last - first + 1
  end
end

-- Makes room for a minute, an hour or a day; its place.
local function place_of(section, number)
  if section.count == 0 then section.first = number end
  local before, after = section.first - number, number - section.first - section.count + 1
  if before > 0 then
    section.entries = rep('\0', before * section.bytes) .. section.entries
    section.first, section.count = number, section.count + before
  elseif after > 0 then
    section.entries = section.entries .. rep('\0', after * section.bytes)
    section.count = section.count + after
  end
  return number - section.first
end

-- Adds to a minute, an hour or a day of a section; what is too far from the present is counted in totals alone.
local function add(section, number, calls, tokens, present)
  if calls == 0 and tokens == 0 then return end
  trim(section, present)
  if number < present - section.kept or number > present + section.ahead then return end
  local place = place_of(section, number)
  local had_calls, had = read_number(section, place)
  calls, tokens = had_calls + calls, max(-TOKENS_MAX, min(TOKENS_MAX, had + tokens))
  if not is_room(section, calls, tokens) then widen(section, calls, tokens) end
  local at = place * section.bytes
  section.entries = sub(section.entries, 1, at)
    .. pack_number(section, calls, tokens) .. sub(section.entries, at + section.bytes + 1)
end

local function new_past()
  local past = { tidied = 0, changed = false }
  for i = 1, #KEPT do past[i] = new_section(i, 0, 0, 8, 0, '', false) end
  return past
end

-- The past as it is stored, or nil where it is not of this form.
local function unpack_past(bytes)
  if #bytes < PAST_HEAD_BYTES then return nil end
  local past, version, at = { changed = false }, nil, nil
  version, past.tidied, at = unpack_bytes(PAST_HEAD, bytes, 1)
  if version ~= PAST then return nil end
  for i = 1, #KEPT do
    if at + SECTION_BYTES > #bytes + 1 then return nil end
    local first, count, call_bits, token_bits = unpack_bytes(SECTION, bytes, at)
    at = at + SECTION_BYTES
    local signed = token_bits >= SIGNED
    token_bits = token_bits % SIGNED
    if call_bits == 0 or call_bits > 48 or token_bits > 56 then return nil end
    local section = new_section(i, first, count, call_bits, token_bits, '', signed)
    if call_bits ~= section.call_bits or token_bits ~= section.token_bits then return nil end
    section.entries = sub(bytes, at, at + count * section.bytes - 1)
    if #section.entries ~= count * section.bytes then return nil end
    past[i], at = section, at + count * section.bytes
  end
  return at == #bytes + 1 and past or nil
end

local function pack_past(past)
  local parts = { pack(PAST_HEAD, PAST, past.tidied) }
  for i = 1, #KEPT do
    local section = past[i]
    local token_bits = section.token_bits + (section.signed and SIGNED or 0)
    parts[2 * i] = pack(SECTION, section.first, section.count, section.call_bits, token_bits)
    parts[2 * i + 1] = section.entries
  end
  return concat(parts)
end

-- Takes out what the past has of a minute, an hour or a day that runs again.
local function take_out(section, number)
  local place = number - section.first
  if place < 0 or place >= section.count then return 0, 0 end
  local calls, tokens = read_number(section, place)
  local at = place * section.bytes
  section.entries = sub(section.entries, 1, at) .. rep('\0', section.bytes) .. sub(section.entries, at + section.bytes + 1)
  return calls, tokens
end

