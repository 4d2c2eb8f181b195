# Connects @TITLE@ on this machine to the lumeproxy at @URL@, and takes that back.
#
#   irm @URL@/setup/@TOOL@.ps1 | iex
#   & ([scriptblock]::Create((irm @URL@/setup/@TOOL@.ps1))) -Undo
#
# Shows what would change and asks. Options: -DryRun, -Yes, -Undo. The key is taken from $env:LUME_KEY, else asked for.
# Needs node, which most of these tools come with; without it, the lines to put in by hand are shown.
param([switch]$DryRun, [switch]$Yes, [switch]$Undo)

function Invoke-LumeproxySetup {
    param([bool]$DryRun, [bool]$Yes, [bool]$Undo)

    $PSNativeCommandUseErrorActionPreference = $false
    $url = @QUOTED_URL@
    $tool = '@TOOL@'
    $program = @'
@PROGRAM@
'@
    $byHand = @'
@BY_HAND@
'@

    if (-not (Get-Command node -ErrorAction SilentlyContinue)) {
        Write-Host $byHand
        throw 'lumeproxy: node is not there. Nothing was changed; do by hand what is said above.'
    }
    if ($Undo) {
        $program | & node '--input-type=module' '-' $tool $url undo-plan
        if ($LASTEXITCODE -ne 0) { throw 'lumeproxy: nothing was changed.' }
        if (-not $DryRun) {
            $program | & node '--input-type=module' '-' $tool $url undo
            if ($LASTEXITCODE -ne 0) { throw 'lumeproxy: it was not taken back.' }
        }
        return
    }
    $before = $env:LUME_KEY
    try {
        if (-not $env:LUME_KEY) {
            $secret = Read-Host -Prompt 'API key' -AsSecureString
            $pointer = [Runtime.InteropServices.Marshal]::SecureStringToBSTR($secret)
            try { $env:LUME_KEY = [Runtime.InteropServices.Marshal]::PtrToStringBSTR($pointer) }
            finally { [Runtime.InteropServices.Marshal]::ZeroFreeBSTR($pointer) }
        }
        $program | & node '--input-type=module' '-' $tool $url plan
        $status = $LASTEXITCODE
        if ($status -eq 3) { Write-Host 'Nothing has to change.' }
        elseif ($status -ne 0) { throw 'lumeproxy: nothing was changed.' }
        if ($DryRun) { return }
        if ($status -eq 0 -and -not $Yes) {
            $reply = Read-Host -Prompt 'Set it up so? [Y/n]'
            if ($reply -notmatch '^(y|yes)?$') { throw 'lumeproxy: nothing was changed.' }
        }
        $program | & node '--input-type=module' '-' $tool $url apply
        if ($LASTEXITCODE -ne 0) { throw 'lumeproxy: the set-up failed, as said above.' }
    }
    finally { $env:LUME_KEY = $before }
}

# All of the above is read before anything is done: a download that breaks off does nothing.
Invoke-LumeproxySetup -DryRun $DryRun -Yes $Yes -Undo $Undo
