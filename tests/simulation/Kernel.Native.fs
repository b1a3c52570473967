namespace Lightway.Tests.Simulation

open System
open System.IO
open System.Runtime.InteropServices
open FSharp.NativeInterop
open Lightway.Tunnel.Udp

#nowarn "9" // writes where recvmmsg(2) and the dynamic linker would

/// What recvmmsg(2) does: fills the slots of a ReceiveBatch.
[<RequireQualifiedAccess>]
module ReceivedDatagrams =
    // struct mmsghdr on 64-bit Linux: the offsets of its fields.
    let private size = 64n

    let inline private at<'T when 'T: unmanaged> (address: nativeint) = NativePtr.ofNativeInt<'T> address
    let inline private read<'T when 'T: unmanaged> (address: nativeint) : 'T = NativePtr.read (at<'T> address)

    let inline private write<'T when 'T: unmanaged> (address: nativeint) (value: 'T) =
        NativePtr.write (at<'T> address) value

    /// Call once before the slots of a receive are filled.
    let prepare (batch: ReceiveBatch) : nativeint = NativePtr.toNativeInt (batch.Prepare())

    /// overflows: the value of SO_RXQ_OVFL; 0: there is no such message.
    let put
        (messages: nativeint)
        (slot: int)
        (data: byte[])
        (length: int)
        (from: PeerAddress)
        (overflows: uint32)
        : unit =
        let header = messages + nativeint slot * size
        let name = read<nativeint> header
        from.CopyTo(Span<byte>(NativePtr.toVoidPtr (at<byte> name), 32))
        write<uint32> (header + 8n) (uint32 from.Length)
        let vector = read<nativeint>(header + 16n)
        let room = int (read<nativeint>(vector + 8n))
        let taken = min length room
        Marshal.Copy(data, 0, read<nativeint> vector, taken)
        write<uint32> (header + 56n) (uint32 taken)
        write<int> (header + 48n) (if length > room then 0x20 else 0) // MSG_TRUNC
        let control = read<nativeint>(header + 32n)

        if overflows = 0u then
            write<nativeint> (header + 40n) 0n
        else
            write<int64> control 20L
            write<int> (control + 8n) 1 // SOL_SOCKET
            write<int> (control + 12n) 40 // SO_RXQ_OVFL
            write<uint32> (control + 16n) overflows
            write<nativeint> (header + 40n) 24n

[<UnmanagedFunctionPointer(CallingConvention.Cdecl)>]
type internal TimeOfDay = delegate of nativeint * nativeint -> int

[<UnmanagedFunctionPointer(CallingConvention.Cdecl)>]
type internal GetRandom = delegate of nativeint * unativeint * uint32 -> nativeint

/// wolfSSL takes the time from gettimeofday(2), to space its repetitions, and the seeds of its generators from
/// getrandom(2). While a world runs, both are the world's: the entries of the library's table of imported functions are
/// replaced. Other libraries keep theirs.
[<RequireQualifiedAccess>]
module WolfSslImports =
    [<DllImport("libc.so.6")>]
    extern int private dlinfo(nativeint handle, int request, nativeint& info)

    [<DllImport("libc.so.6")>]
    extern int private mprotect(nativeint address, unativeint length, int protection)

    let mutable private clock: (unit -> int64) voption = ValueNone
    let mutable private dice: Dice = Dice 0UL
    let private system = lazy NativeLibrary.Load "libc.so.6"

    // Delegates that native code calls live as long as the process.
    let private timeOfDay =
        TimeOfDay(fun time _ ->
            match clock with
            | ValueSome now ->
                let ms = now ()
                NativePtr.write (NativePtr.ofNativeInt<int64> time) (1_800_000_000L + ms / 1000L)
                NativePtr.write (NativePtr.ofNativeInt<int64>(time + 8n)) (ms % 1000L * 1000L)
                0
            | ValueNone -> -1)

    let private getRandom =
        GetRandom(fun buffer length _ ->
            dice.Fill(Span<byte>(NativePtr.toVoidPtr (NativePtr.ofNativeInt<byte> buffer), int length))
            nativeint length)

    let inline private word (address: nativeint) =
        NativePtr.read (NativePtr.ofNativeInt<nativeint> address)

    /// Where the library keeps the addresses of imported functions (ELF-64, gABI "Dynamic Linking").
    let private slots (name: string) : nativeint list =
        let path =
            File.ReadLines "/proc/self/maps"
            |> Seq.map (fun line -> line.Substring(line.LastIndexOf ' ' + 1))
            |> Seq.find _.Contains("libwolfssl")

        let mutable map = 0n

        if dlinfo (NativeLibrary.Load path, 2, &map) <> 0 then // RTLD_DI_LINKMAP
            invalidOp "dlinfo"

        let start = word map

        let entry (tag: nativeint) =
            let rec find (at: nativeint) =
                match word at with
                | 0n -> 0n
                | found when found = tag -> word (at + 8n)
                | _ -> find (at + 16n)

            find (word (map + 16n))

        let absolute value =
            if value < start then value + start else value

        let symbols = absolute (entry 6n)
        let strings = absolute (entry 5n)

        [ for table, bytes in [ entry 23n, entry 2n; entry 7n, entry 8n ] do // JMPREL, RELA
              if table <> 0n then
                  for i in 0 .. int bytes / 24 - 1 do
                      let relocation = absolute table + nativeint (24 * i)
                      let info = word (relocation + 8n)
                      let symbol = symbols + 24n * (info >>> 32)
                      let kind = int (info &&& 0xFFFFFFFFn)
                      let text = NativePtr.read (NativePtr.ofNativeInt<uint32> symbol)

                      // JUMP_SLOT and GLOB_DAT of x86-64 and AArch64.
                      if
                          (kind = 7 || kind = 6 || kind = 1026 || kind = 1025)
                          && Marshal.PtrToStringUTF8(strings + nativeint text) = name
                      then
                          start + word relocation ]

    let private replace (name: string) (target: nativeint) =
        let found = slots name

        if found.IsEmpty then
            invalidOp $"libwolfssl does not import {name}"

        for slot in found do
            let page = slot &&& ~~~4095n

            if mprotect (page, 8192un, 3) <> 0 && mprotect (page, 4096un, 3) <> 0 then // READ, WRITE
                invalidOp "mprotect"

            NativePtr.write (NativePtr.ofNativeInt<nativeint> slot) target

    /// Until the result is disposed of. One world at a time.
    let take (now: unit -> int64) (chance: Dice) : IDisposable =
        Lightway.Tunnel.Tls.WolfSslLibrary.EnsureUsable() |> ignore
        clock <- ValueSome now
        dice <- chance
        replace "gettimeofday" (Marshal.GetFunctionPointerForDelegate timeOfDay)
        replace "getrandom" (Marshal.GetFunctionPointerForDelegate getRandom)

        { new IDisposable with
            member _.Dispose() =
                for name in [ "gettimeofday"; "getrandom" ] do
                    replace name (NativeLibrary.GetExport(system.Value, name)) }
