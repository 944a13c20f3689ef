-- For wrk: POST of one event a request, users and targets varied. The requests are made before the run, so that the generator
-- costs little. KEY is the bearer key; TARGET is the path (default /v1/events); PAD adds that many bytes to the event.
wrk.method = "POST"
wrk.path = os.getenv("TARGET") or "/v1/events"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "")

local pad = tonumber(os.getenv("PAD") or "0")
local note = pad > 0 and string.format(',"note":"%s"', string.rep("x", pad - 10)) or ""
local event = '{"action":"user.permission.updated","actor_id":"user_%d","actor_email":"admin%d@example.com",' ..
  '"target_type":"user","target_id":"user_%d",' ..
  '"metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.%d"%s}}'

local requests, n = {}, 0

function init(args)
  math.randomseed(os.time())
  for i = 1, 20000 do
    local body = string.format(event, math.random(1, 5000), math.random(1, 500), math.random(1, 9000), math.random(0, 255), note)
    requests[i] = wrk.format(nil, nil, nil, body)
  end
end

function request()
  n = n % #requests + 1
  return requests[n]
end
