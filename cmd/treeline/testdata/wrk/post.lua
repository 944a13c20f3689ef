-- For wrk: POST of one event a request, no two alike. The requests are made before the run but for a counter, so that the
-- generator costs little. KEY is the bearer key; TARGET is the path (default /v1/events); PAD adds that many bytes to the event.
wrk.method = "POST"
wrk.path = os.getenv("TARGET") or "/v1/events"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "")

local pad = tonumber(os.getenv("PAD") or "0")
local note = pad > 0 and string.format(',"note":"%s"', string.rep("x", pad - 10)) or ""
local event = '{"action":"user.permission.updated","actor_id":"user_%d","actor_email":"admin%d@example.com",' ..
  '"target_type":"user","target_id":"user_COUNTER",' ..
  '"metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.%d"%s}}'

local heads, tails, n = {}, {}, 0

function init(args)
  math.randomseed(os.time())
  n = math.random(0, 4e8) -- each thread counts from elsewhere
  for i = 1, 5000 do
    local body = string.format(event, math.random(1, 5000), math.random(1, 500), math.random(0, 255), note)
    local request = wrk.format(nil, nil, nil, (body:gsub("COUNTER", "0000000000")))
    local at = request:find("0000000000", 1, true)
    heads[i], tails[i] = request:sub(1, at - 1), request:sub(at + 10)
  end
end

function request()
  n = n + 1
  local i = n % 5000 + 1
  return heads[i] .. (1000000000 + n) .. tails[i]
end
