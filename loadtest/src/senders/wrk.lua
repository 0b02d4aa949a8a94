-- Posts one body over and over, with pauses, and prints what wrk itself counts as errors as JSON.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/x-protobuf"

local pause_ms = tonumber(os.getenv("PAUSE_MS"))
function delay()
  return pause_ms
end

function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
