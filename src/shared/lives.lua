-- What the keepers of replicas know of keys.
--
-- KEYS: the records by name, the number of each one's last change by name, the number of the last change of all.
-- ARGV: how far the caller has read, then for each record it would write its name, the change it has read of it, and the
-- record. Out: this server's time in milliseconds, how far the answer reads, what changed since as name, change, record,
-- and what was written as name, change. A record that somebody else has changed meanwhile is not written but told: the
-- caller has to join it first.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
local since = tonumber(ARGV[1])
-- This server's memory is younger than the caller's.
if since > last then since = 0 end

local most = 500
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
local read, changed, written = last, {}, {}
for i = 1, #found, 2 do
    local record = redis.call('HGET', KEYS[1], found[i])
    if record then
        changed[#changed + 1], changed[#changed + 2], changed[#changed + 3] = found[i], found[i + 1], record
    end
end
if #found == 2 * most then read = tonumber(found[#found]) end

local first = last
for i = 2, #ARGV, 3 do
    local change = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[i]) or '0')
    if change == tonumber(ARGV[i + 1]) then
        last = last + 1
        redis.call('ZADD', KEYS[2], last, ARGV[i])
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
        written[#written + 1], written[#written + 2] = ARGV[i], tostring(last)
    else
        local record = redis.call('HGET', KEYS[1], ARGV[i])
        if record then
            changed[#changed + 1], changed[#changed + 2], changed[#changed + 3] = ARGV[i], tostring(change), record
        end
    end
end
if last > first then
    redis.call('SET', KEYS[3], last)
    for i = 1, 3 do redis.call('EXPIRE', KEYS[i], 90 * 24 * 60 * 60) end
    -- The caller need not read what it has just written.
    if read == first then read = last end
end
return { now, read, changed, written }
