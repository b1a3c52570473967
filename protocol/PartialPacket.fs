namespace Lightway.Protocol

open System
open System.Buffers
open System.Collections.Generic

/// Result of adding one fragment.
type FragmentStatus =
    /// Kept, or known already; pieces are still missing.
    | Stored = 0
    /// It was the last missing piece: the packet is in the caller's buffer.
    | Complete = 1
    /// It contradicts the other pieces, is empty, or there is no room for it: its id starts from scratch.
    | Invalid = 2

/// Bytes `Start` (inclusive) to `End` (exclusive) of a packet.
[<Struct>]
type internal Run = { Start: int; End: int }

/// One packet that is being reassembled. Its buffer is rented, so that steady traffic allocates nothing.
/// Law: runs are sorted, apart from each other, and hold exactly the bytes received.
[<Sealed; AllowNullLiteral>]
type internal PartialPacket() =
    let runs = List<Run>()
    let mutable buffer: byte[] = Array.Empty()
    let mutable total = -1 // bytes of the whole packet, once its last piece came

    member val Id = 0us with get, set
    member val CreatedAt = 0L<ms> with get, set

    /// Size of the rented buffer, in bytes.
    member _.Capacity: int = buffer.Length

    /// Makes room for `capacity` bytes, keeping what is there. Precondition: more than now.
    member _.Grow(capacity: int) : unit =
        let larger = ArrayPool.Shared.Rent capacity
        buffer.CopyTo(larger, 0)
        ArrayPool.Shared.Return buffer
        buffer <- larger

    /// Returns the memory and forgets everything.
    member _.Reset() : unit =
        ArrayPool.Shared.Return buffer
        buffer <- Array.Empty()
        total <- -1
        runs.Clear()

        if runs.Capacity > 64 then // a packet in tiny pieces: do not keep its table
            runs.Capacity <- 64

    // Index of the first run that ends behind `offset`; runs.Count for pieces that arrive in order.
    member private _.Find(offset: int) : int =
        let mutable i = runs.Count

        while i > 0 && runs[i - 1].End > offset do
            i <- i - 1

        i

    // Puts a new run before index `i`, joined with the neighbours that it touches.
    member private _.Insert(i: int, offset: int, finish: int) : unit =
        let joinsLeft = i > 0 && runs[i - 1].End = offset
        let joinsRight = i < runs.Count && runs[i].Start = finish

        if joinsLeft && joinsRight then
            runs[i - 1] <- { runs[i - 1] with End = runs[i].End }
            runs.RemoveAt i
        elif joinsLeft then
            runs[i - 1] <- { runs[i - 1] with End = finish }
        elif joinsRight then
            runs[i] <- { runs[i] with Start = offset }
        else
            runs.Insert(i, { Start = offset; End = finish })

    /// Adds a piece. An exact repetition of known bytes is tolerated; any other overlap is not.
    /// Precondition: `payload` is not empty and ends within the capacity.
    member this.Add(offset: int, more: bool, payload: ReadOnlySpan<byte>) : FragmentStatus =
        let finish = offset + payload.Length
        let i = this.Find offset
        let known = Span(buffer, offset, payload.Length)

        if i < runs.Count && runs[i].Start < finish then // overlaps
            let repeats =
                runs[i].Start <= offset
                && runs[i].End >= finish
                && more = (finish <> total)
                && payload.SequenceEqual(Span.op_Implicit known)

            if repeats then
                FragmentStatus.Stored
            else
                FragmentStatus.Invalid
        elif (if i < runs.Count then not more else total >= 0) then
            FragmentStatus.Invalid // a last piece before a known one, or any piece behind the last
        else
            payload.CopyTo known
            this.Insert(i, offset, finish)

            if not more then
                total <- finish

            if runs.Count = 1 && runs[0].Start = 0 && runs[0].End = total then
                FragmentStatus.Complete
            else
                FragmentStatus.Stored

    /// Copies the whole packet and returns its bytes; -1 when `dst` is too short. Precondition: `Add` said `Complete`.
    member _.CopyTo(dst: Span<byte>) : int =
        if dst.Length < total then
            -1
        else
            ReadOnlySpan(buffer, 0, total).CopyTo dst
            total
