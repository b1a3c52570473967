/// A network namespace that ends with the thread that made it, and the calls that set up its devices.
module Lightway.Specs.Oracles.Namespace

open System
open System.IO
open System.Runtime.InteropServices
open System.Text
open System.Threading
open Lightway.Specs.Oracles.KernelNative

/// The kernel or the container does not let us: a skip, not a failure.
exception Refused of call: string * errno: int

let check (call: string) (result: int) : int =
    if result < 0 then
        raise (Refused(call, Marshal.GetLastPInvokeError()))

    result

/// `struct ifreq` (linux/if.h): 16 bytes of name, then the union.
let ifreq (name: string) (value: byte[]) : byte[] =
    let request = Array.zeroCreate 40
    Encoding.ASCII.GetBytes(name).CopyTo(request, 0)
    value.CopyTo(request, 16)
    request

/// Writes a file of /proc/sys or /sys.
let writeSetting (path: string) (value: string) : unit =
    try
        File.WriteAllText(path, value)
    with
    | :? IOException
    | :? UnauthorizedAccessException -> raise (Refused($"write {path}", Marshal.GetLastPInvokeError()))

/// Opens /dev/net/tun as the device `name`, which the kernel makes, with TUNSETIFF's flags.
let openTun (name: string) (flags: int16) : int =
    let tun =
        check "open /dev/net/tun" (openFile ("/dev/net/tun", O_RDWR_NONBLOCK_CLOEXEC))

    check "TUNSETIFF" (ioctl (tun, TUNSETIFF, ifreq name (BitConverter.GetBytes flags))) |> ignore
    tun

/// Sets length of the ring (packets) and MTU (bytes) of a device and puts it up; returns its index.
let bringUp (name: string) (ringLength: int) (mtu: int) : int =
    let control = check "socket" (socket (AF_INET, SOCK_DGRAM, 0))

    let set call request (value: byte[]) =
        check call (ioctl (control, request, ifreq name value)) |> ignore

    set "SIOCSIFTXQLEN" SIOCSIFTXQLEN (BitConverter.GetBytes ringLength)
    set "SIOCSIFMTU" SIOCSIFMTU (BitConverter.GetBytes mtu)
    set "SIOCSIFFLAGS" SIOCSIFFLAGS (BitConverter.GetBytes IFF_UP_RUNNING)
    let request = ifreq name [||]
    check "SIOCGIFINDEX" (ioctl (control, SIOCGIFINDEX, request)) |> ignore
    close control |> ignore
    BitConverter.ToInt32(request, 16)

/// Waits for the next packet of a device, for a limited number of ms.
let readPacket (tun: int) (buffer: byte[]) (timeoutMs: int) : byte[] voption =
    let waiting =
        poll (
            [| { fd = tun
                 events = POLLIN
                 revents = 0s } |],
            1UL,
            timeoutMs
        )

    if waiting <= 0 then
        ValueNone
    else
        match int (read (tun, buffer, nativeint buffer.Length)) with
        | length when length >= 0 -> ValueSome buffer[.. length - 1]
        | _ -> ValueNone

/// Runs `body` on a separate thread, as namespaces belong to the thread that makes them. What it opens is disposed of
/// at its end; `Refused` comes back as an error text.
let run<'Kernel, 'T when 'Kernel :> IDisposable>
    (openKernel: unit -> 'Kernel)
    (body: 'Kernel -> 'T)
    : Result<'T, string> =
    let mutable outcome = Error "the thread did not run"
    let mutable failure: exn = null

    let thread =
        Thread(
            (fun () ->
                try
                    use kernel = openKernel ()
                    outcome <- Ok(body kernel)
                with
                | Refused(call, errno) ->
                    outcome <- Error $"{call}: {Marshal.GetPInvokeErrorMessage errno} (errno {errno})"
                | error -> failure <- error),
            maxStackSize = 16 * 1024 * 1024
        )

    thread.Start()
    thread.Join()

    if not (isNull failure) then
        raise (AggregateException failure)

    outcome
