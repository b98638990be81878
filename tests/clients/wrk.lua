-- A request of wrk, chosen by the arguments after `--`: PATH BODY PART. Every answer must have status 200 and hold PART.
local threads = {}

function setup(thread)
   thread:set("wrong", 0)
   table.insert(threads, thread)
end

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
   wrk.path, wrk.body, part = args[1], args[2], args[3]
end

function response(status, headers, body)
   if status ~= 200 or not string.find(body, part, 1, true) then
      wrong = wrong + 1
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.timeout
   for _, thread in ipairs(threads) do
      failed = failed + thread:get("wrong")
   end
   print(string.format("wrk: %d requests, %d failed", summary.requests, failed))
end
