-- Writes into a request's body the name by which the model's server knows the model. Run by Envoy's Lua filter, put
-- there by publisher/envoy/answer.py; why: docs/decisions/0048.
--
-- Called: at each request of a route that turns it on, after Check. Those of which Check says nothing pass untouched.
-- Reads: dynamic metadata `envoy.filters.http.ext_authz` -> `rewrite`: "<begin> <end> <size> <text>", the text to be put
--   in the place of these bytes of the body, counted from 0, where the body has this size.
-- Returns: nothing. Content-Length is put right. A body of another size, or any fault in here, ends the call with 503: a
--   name that the server takes for another model must not reach it.

local FAILED = '{"error":{"message":"The gateway failed to name the model to its server; nothing was let through.",'
  .. '"type":"service_unavailable","code":"internal_error","param":null}}'

local function rewrite(handle, order)
  local from, to, size, text = string.match(order, "^(%d+) (%d+) (%d+) (.*)$")
  local body = handle:body()
  from, to, size = tonumber(from), tonumber(to), tonumber(size)
  if body:length() ~= size or from > to or to > size then
    error("the body is not the one that was checked")
  end
  local before = from > 0 and body:getBytes(0, from) or ""
  local behind = to < size and body:getBytes(to, size - to) or ""
  body:setBytes(before .. text .. behind)
  handle:headers():replace("content-length", tostring(#before + #text + #behind))
end

function envoy_on_request(handle)
  local said = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  local order = said and said["rewrite"]
  if order and not pcall(rewrite, handle, order) then
    handle:respond({ [":status"] = "503", ["content-type"] = "application/json" }, FAILED)
  end
end
