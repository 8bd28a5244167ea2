-- What budget.lua finds in Redis, as far as it uses it: hashes, the time, and JSON.
--
-- In: a reader of JSON, the script and the one that asks for a sign of life, once; for each call its key, its argument and
-- the time. Out: the text it answers.
-- A record is kept as the table that was encoded, with numbers as its text would have them: reading the texts of fifty
-- members for each report would take most of the time. Whoever decodes one has an empty table that shows what is kept;
-- what is written to it is gone after the call.

local read, script, sign = ...
local format, huge = string.format, math.huge

-- All of it is less than a megabyte; garbage may be as much.
collectgarbage('setpause', 1000)

-- What the text of a number says of it: cjson writes 14 digits.
local function rounded(number)
    if number ~= number or number == huge or number == -huge then error('no number of JSON') end
    return tonumber(format('%.14g', number))
end

-- What was written to records in this call.
local written = {}

local function note(shown, name, value)
    written[#written + 1] = shown
    rawset(shown, name, value)
end

-- Strings and booleans are what they are, and nothing is nested but lists of numbers, and who tries, in whole numbers.
local function encode(own)
    local kept = own
    local shown = getmetatable(own)
    if shown then
        kept = {}
        for name, value in pairs(shown.__index) do kept[name] = value end
        for name, value in pairs(own) do kept[name] = value end
    end
    for name, value in pairs(kept) do
        if type(value) == 'number' then
            if value % 1 ~= 0 then kept[name] = rounded(value) end
        elseif type(value) == 'table' then
            for i = 1, #value do value[i] = rounded(value[i]) end
        end
    end
    return setmetatable({}, { __index = kept, __newindex = note })
end

local function decode(shown)
    if not shown then error('nothing is kept') end
    return type(shown) == 'string' and read(shown) or shown
end

local function text(answer)
    local members = {}
    for name, value in pairs(answer) do
        if type(value) == 'number' then value = format('%.14g', rounded(value)) end
        members[#members + 1] = format('"%s":%s', name, tostring(value))
    end
    return '{' .. table.concat(members, ',') .. '}'
end

local hashes, time = {}, nil

local commands = {
    TIME = function() return time end,
    HGETALL = function(key)
        local all, length = {}, 0
        for field, value in pairs(hashes[key] or {}) do
            all[length + 1], all[length + 2] = field, value
            length = length + 2
        end
        return all
    end,
    HGET = function(key, field) return (hashes[key] or {})[field] or false end,
    HSET = function(key, ...)
        local words, hash = { ... }, hashes[key] or {}
        for i = 1, #words, 2 do hash[words[i]] = words[i + 1] end
        hashes[key] = hash
    end,
    HDEL = function(key, field) hashes[key][field] = nil end,
    -- What is written all the time does not run out.
    PEXPIRE = function() end,
}

redis = { call = function(name, ...) return commands[name](...) end }
cjson = { encode = encode, decode = decode }

return function(key, argument, seconds, micros)
    KEYS, ARGV, time = { key }, { argument }, { seconds, micros }
    local answer = text(getmetatable(script()).__index)
    for i = #written, 1, -1 do
        local shown = written[i]
        for name in pairs(shown) do shown[name] = nil end
        written[i] = nil
    end
    return answer
end, function(key)
    KEYS = { key }
    return sign()
end
