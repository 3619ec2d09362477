-- What an answer tells of its usage, read while its pieces pass. Run by Envoy's Lua filter, put there by
-- publisher/envoy/answer.py; why and at what cost: docs/decisions/0029.
--
-- Called: at each 2xx answer of JSON or server-sent events that is not compressed; every other is left alone.
-- Returns: nothing. Nothing is held back or changed, and a fault in here ends the reading, never the call.
-- Tells: dynamic metadata `tollkeeper.usage`, the largest seen of each number, as soon as it is seen: `total`, `prompt`,
--   `completion`, `cached`, `cache_written`, `reasoning` and `apart` (cached tokens that `prompt` leaves out);
--   `events`: events with content, told at most a fifth late while the stream runs; `fault`: 1 if the reading failed;
--   `id`: the answer's own, a string: where the first slice begins with it, or the `response` of one of the events up to
--   the first with content. It is a hint for work that goes on: where it stands otherwise, none is told.
-- Keeps: at most KEPT_BYTES of an answer between two pieces. Time is linear in the answer, however it is cut.
-- Place decides: PLACES says in which objects a usage object counts. A key written with escapes is another key.

local NAMESPACE = "tollkeeper.usage"
local SLICE_BYTES = 65536 -- of a piece, looked at in one go
local UNREAD_BYTES = 4096 -- of an event, kept until it names usage or ends; a longer one is read as it comes
local KEPT_BYTES = 16384 -- of a usage object; a longer one is none
local KEY_BYTES = 16 -- the longest key that decides has 13
local GAP_BYTES = 1024 -- between two signs; what is longer than that holds no key
local NEAR_BYTES = 64 -- in which the next sign is looked for byte by byte
local ID_BYTES = 128 -- of an answer's id; a longer one is none
local ID_WITHIN = 1024 -- so far into an event it is looked for
local MOST = 2 ^ 53 -- tokens; what is told above is taken for that

local PARTS = {
  total_tokens = "total",
  totalTokenCount = "total",
  prompt_tokens = "prompt",
  input_tokens = "prompt",
  promptTokenCount = "prompt",
  toolUsePromptTokenCount = "prompt",
  completion_tokens = "completion",
  output_tokens = "completion",
  candidatesTokenCount = "completion",
  cached_tokens = "cached",
  cache_read_input_tokens = "cached",
  prompt_cache_hit_tokens = "cached",
  cachedContentTokenCount = "cached",
  cache_creation_input_tokens = "cache_written",
  cache_write_tokens = "cache_written",
  reasoning_tokens = "reasoning",
  thinking_tokens = "reasoning",
  thoughtsTokenCount = "reasoning",
}

local IN_ARRAY, IN_OBJECT = 1, 2
local USAGE = { kind = IN_OBJECT, keys = {} }
local HOLDER = { kind = IN_OBJECT, keys = { usage = USAGE, usageMetadata = USAGE } }
local CHOICES = { kind = IN_ARRAY, each = { kind = IN_OBJECT, keys = { usage = USAGE } } }
local META = { kind = IN_OBJECT, keys = { tokens = USAGE, billed_units = USAGE } }

-- What an answer or an event may be: an object, or an array of them as Gemini streams it. Only answers have a `meta`.
local function places(meta)
  local keys = { usage = USAGE, usageMetadata = USAGE, choices = CHOICES, meta = meta }
  keys.message, keys.response, keys.x_groq = HOLDER, HOLDER, HOLDER
  local top = { kind = IN_OBJECT, keys = keys }
  return { [IN_OBJECT] = top, [IN_ARRAY] = { kind = IN_ARRAY, each = top } }
end
local OF_ANSWER, OF_EVENT = places(META), places(nil)

local QUOTE, BACKSLASH, COLON, OPEN_ARRAY = 34, 92, 58, 91
local OPENS = { [91] = IN_ARRAY, [123] = IN_OBJECT }
local SIGNS = { '"', "{", "}", "[", "]" }
local IS_SIGN = { [34] = true, [91] = true, [93] = true, [123] = true, [125] = true }
local IS_LINE_END = { [10] = true, [13] = true }
local IS_SPACE = { [9] = true, [10] = true, [13] = true, [32] = true }

local ANSWERS_ID = '^%s*{%s*"id"%s*:%s*"([%w_-]+)"'
local EVENTS_ID = '"response"%s*:%s*{%s*"id"%s*:%s*"([%w_-]+)"'

local byte, find, gmatch, gsub, lower, match, sub =
  string.byte, string.find, string.gmatch, string.gsub, string.lower, string.match, string.sub
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

-- Where a string ends whose bytes begin at `at` (the first of them `escaped` or not), or nil and whether what follows
-- `text` is escaped.
local function string_end(text, at, escaped)
  if escaped then
    at = at + 1
  end
  local from = at
  while true do
    local quote = find(text, '"', at, true)
    local last = quote and quote - 1 or #text
    local before = last
    while before >= from and byte(text, before) == BACKSLASH do
      before = before - 1
    end
    local odd = (last - before) % 2 == 1
    if not quote then
      return nil, odd or (escaped and from > #text + 1)
    end
    if not odd then
      return quote, false
    end
    at = quote + 1
  end
end

-- Note the answer's id, where this is how its text begins or what stands in an event of it; whether that was so.
local function note_id(reader, text, pattern)
  local id = match(text, pattern)
  if id and #id <= ID_BYTES then
    reader.news.id = id
  end
  return id ~= nil
end

-- The next quote or bracket from `at` on, and its byte; nil where there is none. `ahead` remembers those further on.
local function next_sign(text, at, ahead)
  local near = min(at + NEAR_BYTES, #text)
  for here = at, near do
    local sign = byte(text, here)
    if IS_SIGN[sign] then
      return here, sign
    end
  end
  if near == #text then
    return nil
  end
  local nearest = #text + 1
  for index = 1, 5 do
    local place = ahead[index]
    if place <= near then
      place = find(text, SIGNS[index], near + 1, true) or #text + 1
      ahead[index] = place
    end
    nearest = min(nearest, place)
  end
  if nearest <= #text then
    return nearest, byte(text, nearest)
  end
  return nil
end

-- Whether what opens at `at` is a key's value: a colon stands before it. One line of an event's data may end between.
local function is_value(text, at)
  repeat
    repeat
      at = at - 1
    until not IS_SPACE[byte(text, at)]
    local colon = byte(text, at) == COLON
    local new_line = colon and find(text, "^[\r\n]data:", at - 5)
    at = new_line or at
  until not new_line
  return byte(text, at) == COLON
end

-- The place that opens at `at`; nil where nothing in it counts.
local function place_at(reader, text, at, kind)
  local inside, place = reader.places[reader.depth], nil
  if not inside then
    place = reader.outermost[kind]
  elseif inside.kind == IN_ARRAY then
    place = inside.each
  elseif reader.key and is_value(text, at) then
    place = inside.keys[reader.key]
  end
  return place and place.kind == kind and place or nil
end

-- A usage object's numbers, each the largest of its name.
local function numbers_of(object)
  local numbers = {}
  if find(object, "data:", 1, true) then
    object = gsub(object, "[\r\n]data:", " ")
  end
  for name, written in gmatch(object, '"([%w_]+)"%s*:%s*(%d[%d.eE+-]*)') do
    local number = PARTS[name] and tonumber(written)
    if number then
      numbers[name] = max(numbers[name] or 0, min(ceil(number), MOST))
    end
  end
  return numbers
end

-- Remember the largest of a part.
local function note(reader, part, number)
  if number > (reader.told[part] or -1) then
    reader.told[part] = number
    reader.news[part] = number
  end
end

-- Note what a usage object tells. Gemini counts thoughts beside the answer's tokens and what its tools read beside the
-- prompt's; Anthropic what its cache served or took in, but who tells a total or `prompt_tokens` has that in the prompt.
local function note_usage(reader, object)
  local numbers = numbers_of(object)
  for name, number in pairs(numbers) do
    note(reader, PARTS[name], number)
  end
  if numbers.thoughtsTokenCount then
    note(reader, "completion", min(MOST, (numbers.candidatesTokenCount or 0) + numbers.thoughtsTokenCount))
  end
  if numbers.toolUsePromptTokenCount then
    note(reader, "prompt", min(MOST, (numbers.promptTokenCount or 0) + numbers.toolUsePromptTokenCount))
  end
  local read, written = numbers.cache_read_input_tokens, numbers.cache_creation_input_tokens
  if (read or written) and not (numbers.prompt_tokens or numbers.total_tokens) then
    note(reader, "apart", min(MOST, (read or 0) + (written or 0)))
  end
end

local function opened(reader, text, at, kind)
  local place = reader.outside == 0 and place_at(reader, text, at, kind)
  if not place then
    reader.outside = reader.outside + 1
    return
  end
  reader.depth = reader.depth + 1
  reader.places[reader.depth] = place
  if place == USAGE then
    reader.usage_at = at
  end
end

local function closed(reader, text, at)
  if reader.outside > 0 then
    reader.outside = reader.outside - 1
    return
  end
  if reader.usage_at then
    if at - reader.usage_at < KEPT_BYTES then
      note_usage(reader, sub(text, reader.usage_at, at))
    end
    reader.usage_at = nil
  end
  reader.depth = max(0, reader.depth - 1)
end

-- Take the string that begins at `here`: it may be a key. Returns where to go on, and whether the text ends in it.
local function take_string(reader, text, here)
  local quote, escaped = string_end(text, here + 1, false)
  if not quote and reader.outside == 0 and #text - here <= KEY_BYTES then
    return here, true
  end
  reader.key = nil
  if not quote then
    reader.in_string, reader.escaped = true, escaped
    return #text + 1, true
  end
  if reader.outside == 0 and quote - here - 1 <= KEY_BYTES then
    reader.key = sub(text, here + 1, quote - 1)
  end
  return quote + 1, false
end

-- Read JSON from `at` on. Returns where to go on once more has come: all before is done with, but for `usage_at`.
local function scan(reader, text, at)
  if reader.in_string then
    local quote, escaped = string_end(text, at, reader.escaped)
    reader.in_string, reader.escaped = not quote, escaped
    if not quote then
      return #text + 1
    end
    at = quote + 1
  end
  local ahead = { 0, 0, 0, 0, 0 }
  while true do
    local here, sign = next_sign(text, at, ahead)
    if not here then
      return #text - at > GAP_BYTES and #text + 1 or at
    elseif sign == QUOTE then
      local is_cut
      at, is_cut = take_string(reader, text, here)
      if is_cut then
        return at
      end
    else
      if OPENS[sign] then
        opened(reader, text, here, OPENS[sign])
      else
        closed(reader, text, here)
      end
      reader.key = nil
      at = here + 1
    end
  end
end

-- Read JSON, and keep of it what the rest may need; line ends at its end too, for they may end an event.
local function read(reader, text)
  local last = #text
  while #text - last < 3 and IS_LINE_END[byte(text, last)] do
    last = last - 1
  end
  local at = scan(reader, last == #text and text or sub(text, 1, last), reader.at)
  if reader.usage_at and #text - reader.usage_at >= KEPT_BYTES then
    reader.usage_at = nil
    reader.depth = reader.depth - 1
    reader.outside = reader.outside + 1
  end
  local keep = reader.usage_at or at
  reader.at = at - keep + 1
  reader.usage_at = reader.usage_at and 1
  reader.pending = sub(text, keep)
end

local function begin(reader)
  reader.pending, reader.at, reader.depth, reader.outside = "", 1, 0, 0
  reader.in_string, reader.escaped, reader.key, reader.usage_at = false, false, nil, nil
end

-- Where the next usage is named from `at` on, or behind the text; not where its value is a null, as in nearly all events.
local function next_usage(text, at)
  while true do
    local named = find(text, '"usage', at, true)
    if not named then
      return #text + 1
    elseif match(text, '^%w*"%s*:%s*(%S)', named + 6) ~= "n" then
      return named
    end
    at = named + 6
  end
end

-- What stands between two events of this stream: a blank line, in the way its first line ends; nil: not known yet.
local function separator_of(text)
  local feed, carriage = find(text, "\n", 1, true), find(text, "\r", 1, true)
  if feed and (not carriage or feed < carriage) then
    return "\n\n"
  elseif carriage and carriage < #text then
    return feed == carriage + 1 and "\r\n\r\n" or "\r\r"
  end
  return nil
end

-- Look for the id in an event, until one is found or content has come.
local function seek_id(reader, text, from, last)
  local event = sub(text, from, min(last, from + ID_WITHIN - 1))
  reader.seeks_id = not note_id(reader, event, EVENTS_ID) and reader.events == 0
end

-- Count an event that has content: any data but `[DONE]`; of those with a structured name only a delta, and no ping.
local function count(reader, text, from, last)
  local data = from
  if byte(text, from) ~= 100 or byte(text, from + 4) ~= COLON then
    data = find(text, "data:", from, true)
    if not data or data > last then
      return
    end
    local name = match(sub(text, from, data - 1), "event: ?([^\r\n]*)")
    if name and (name == "ping" or find(name, "[._]") and sub(name, -5) ~= "delta") then
      return
    end
  end
  local first = byte(text, data + 5)
  if first == 32 then
    first = byte(text, data + 6)
  end
  if first and first ~= 10 and first ~= 13 and first ~= OPEN_ARRAY then
    reader.events = reader.events + 1
  end
end

-- What is done once for each event, when its beginning is there.
local function take_event(reader, text, from, last)
  count(reader, text, from, last)
  if reader.seeks_id then
    seek_id(reader, text, from, last)
  end
end

-- Begin to read an event before its end is there; false where its data have not begun.
local function read_ahead(reader, event)
  local data = find(event, "data:", 1, true)
  if not data or data + 6 > #event then -- what they begin with is counted by
    return false
  end
  take_event(reader, event, 1, #event)
  reader.ahead = true
  read(reader, sub(event, data + 5))
  return true
end

-- An event is whole: from..last of `text`.
local function ended(reader, text, from, last, names_usage)
  if reader.ahead then
    read(reader, sub(text, from, last))
    reader.ahead = false
    begin(reader)
    return
  end
  if names_usage then
    local data = find(text, "data:", from, true)
    if data and data < last then
      begin(reader)
      read(reader, sub(text, data + 5, last))
      begin(reader)
    end
  end
  take_event(reader, text, from, last)
end

local function take_json(reader, slice)
  if reader.seeks_id then
    note_id(reader, slice, ANSWERS_ID)
    reader.seeks_id = false
  end
  read(reader, reader.pending .. slice)
end

local function take_events(reader, slice)
  local before = #reader.pending
  local text, from = reader.pending .. slice, 1
  local at = max(1, before - 2) -- a blank line may have begun before
  local usage = reader.ahead and 0 or next_usage(text, max(1, before - KEY_BYTES))
  reader.separator = reader.separator or separator_of(text)
  local blank = reader.separator and find(text, reader.separator, at, true)
  while blank do
    ended(reader, text, from, blank - 1, usage < blank)
    from = blank + #reader.separator
    if usage < from then
      usage = next_usage(text, from)
    end
    blank = find(text, reader.separator, from, true)
  end
  local rest = from == 1 and text or sub(text, from)
  if reader.ahead then
    read(reader, rest)
  elseif not ((usage <= #text or #rest > UNREAD_BYTES) and read_ahead(reader, rest)) then
    reader.pending = #rest > UNREAD_BYTES and sub(rest, -KEY_BYTES) or rest
  end
end

-- A last event may lack its blank line.
local function finish_events(reader)
  local last = #reader.pending
  if not reader.ahead and last > 0 then
    ended(reader, reader.pending, 1, last, next_usage(reader.pending, 1) <= last)
  end
end

-- Note how many events there were, in steps: to tell one costs about a microsecond.
local function note_events(reader, is_last)
  if reader.events > 0 and (is_last or reader.events >= reader.next_events) then
    note(reader, "events", reader.events)
    reader.next_events = reader.events + max(1, floor(reader.events / 4))
  end
end

local function tell(handle, reader)
  if next(reader.news) then
    local metadata = handle:streamInfo():dynamicMetadata() -- not to be kept from one piece to the next
    for part, number in pairs(reader.news) do
      metadata:set(NAMESPACE, part, number)
      reader.news[part] = nil
    end
  end
end

-- What takes a piece of this answer, what ends it; nil where it is not read.
local function way_of(headers)
  local kind = lower(headers:get("content-type") or "")
  local take = find(kind, "text/event-stream", 1, true) and take_events or find(kind, "json", 1, true) and take_json
  local coding = headers:get("content-encoding")
  if not take or sub(headers:get(":status") or "", 1, 1) ~= "2" or coding and coding ~= "identity" then
    return nil
  end
  return take
end

local function take_piece(reader, take, piece)
  for offset = 0, piece:length() - 1, SLICE_BYTES do
    take(reader, piece:getBytes(offset, min(SLICE_BYTES, piece:length() - offset)))
  end
  note_events(reader, false)
end

local function finish(reader, take)
  if take == take_events then
    finish_events(reader)
    note_events(reader, true)
  end
end

function envoy_on_response(handle)
  local take = way_of(handle:headers())
  if not take then
    return
  end
  local reader = { told = {}, news = {}, places = {}, events = 0, next_events = 1, ahead = false, seeks_id = true }
  reader.outermost = take == take_json and OF_ANSWER or OF_EVENT
  begin(reader)
  local good = true
  for piece in handle:bodyChunks() do
    good = pcall(take_piece, reader, take, piece)
    if not good then
      break
    end
    tell(handle, reader)
  end
  if not (good and pcall(finish, reader, take)) then
    reader.news.fault = 1
  end
  tell(handle, reader)
end
