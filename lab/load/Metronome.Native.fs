namespace Lightway.Lab.Load

open System
open System.Runtime.InteropServices
open System.Threading
open Lightway.Lab
open Lightway.Tunnel.Kernel

#nowarn "9" // hands structures on the stack to the kernel

module private TimerFd =
    [<Literal>]
    let Monotonic = 1 // CLOCK_MONOTONIC

    [<Literal>]
    let Flags = 0o2004000 // TFD_NONBLOCK | TFD_CLOEXEC

    /// struct itimerspec: interval and first expiry, each of seconds and nanoseconds.
    [<Struct; StructLayout(LayoutKind.Sequential)>]
    type Setting =
        { IntervalSeconds: int64
          IntervalNanoseconds: int64
          FirstSeconds: int64
          FirstNanoseconds: int64 }

    [<DllImport("libc", SetLastError = true)>]
    extern int timerfd_create(int clock, int flags)

    [<DllImport("libc", SetLastError = true)>]
    extern int timerfd_settime(int fd, int flags, Setting& setting, nativeint previous)

    [<DllImport("libc", SetLastError = true)>]
    extern nativeint read(int fd, uint64& expirations, nativeint count)

    [<DllImport("libc")>]
    extern int close(int fd)

/// Wakes an epoll loop as often as packets that leave one by one are due: epoll's own waits are whole milliseconds, and what is
/// due within one of them would leave together. One thread.
[<Sealed>]
type internal Metronome() =
    let fd = TimerFd.timerfd_create (TimerFd.Monotonic, TimerFd.Flags)
    let mutable period = 0L // ns; 0: stopped

    do
        if fd < 0 then
            raise (LabException $"timerfd_create: errno {Marshal.GetLastPInvokeError()}")

    /// To be watched for reading.
    member _.Fd: int = fd

    /// Beats for each packet of an offer of single packets, and not for others.
    member _.Follow(offer: Offer) : unit =
        let wanted =
            if offer.Segments = 1 && offer.Megabits > 0.0 then
                int64 (float offer.PacketBytes * 8e3 / offer.Megabits)
            else
                0L

        if wanted <> period then
            period <- wanted

            let mutable setting: TimerFd.Setting =
                { IntervalSeconds = 0L
                  IntervalNanoseconds = period
                  FirstSeconds = 0L
                  FirstNanoseconds = period }

            if TimerFd.timerfd_settime (fd, 0, &setting, 0n) <> 0 then
                raise (LabException $"timerfd_settime: errno {Marshal.GetLastPInvokeError()}")

    interface IReadyHandler with
        member _.OnReady _ =
            let mutable expirations = 0UL
            TimerFd.read (fd, &expirations, nativeint sizeof<uint64>) |> ignore

    interface IDisposable with
        member _.Dispose() = TimerFd.close fd |> ignore

/// What a loop of its own thread goes by: what it offers, and until when. The properties and `Stop`: any thread.
[<Sealed>]
type internal OfferLoop() =
    let mutable offer = Offer.None
    let mutable isOver = false

    member _.Offer
        with get (): Offer = Volatile.Read &offer
        and set (value: Offer) = Volatile.Write(&offer, value)

    /// Calls `step` when `fd` is readable, when a packet is due and each millisecond, as finely as bursts are spread, until
    /// `Stop`, on the calling thread.
    member this.Run (fd: int) (step: unit -> unit) : unit =
        use epoll = new Epoll()

        epoll.Add(
            fd,
            { new IReadyHandler with
                member _.OnReady _ = () }
        )
        |> ignore

        use metronome = new Metronome()
        epoll.Add(metronome.Fd, metronome) |> ignore

        while not (Volatile.Read &isOver) do
            metronome.Follow this.Offer
            epoll.Wait 1
            step ()

    member _.Stop() : unit = Volatile.Write(&isOver, true)
