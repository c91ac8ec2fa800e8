-- The health of a ServiceRelease for Argo CD. It reads conditions as kstatus does; which phases
-- wait for a person is all that it knows of phases, so that new ones need no change here.

local waiting = { Paused = true, AwaitingApproval = true }

local status = obj.status or {}

-- True only where the condition speaks of the present generation.
local function holds(name)
  for _, condition in ipairs(status.conditions or {}) do
    if condition.type == name then
      return condition.status == "True" and condition.observedGeneration == obj.metadata.generation
    end
  end
  return false
end

local message = status.message or ""
if (status.nextAction or "") ~= "" then
  message = message .. ". Next: " .. status.nextAction
end

if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not looked at this generation yet" }
elseif waiting[status.phase] then
  return { status = "Suspended", message = message }
elseif holds("Ready") then
  return { status = "Healthy", message = message }
elseif holds("Stalled") then
  return { status = "Degraded", message = message }
end
return { status = "Progressing", message = message }
