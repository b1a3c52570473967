namespace Lightway.Protocol

open System
open System.Collections.Generic
open System.Numerics

/// Puts fragmented inside packets together again. One per connection, used by one thread, its worker's. Plain and
/// encoded fragments share it; the kind of the frame that completes a packet says whether the result is encoded. At
/// most `capacity` packets and `maxBytes` bytes of buffers are held: the oldest packet is dropped to make room. A
/// packet that is incomplete `timeoutMs` after its first piece is dropped. Steady traffic allocates nothing.
/// Laws: pieces in any order, repeated or not, give the packet; no packet is longer than 65535 bytes; bytes that no
/// piece brought never come out.
[<Sealed; AllowNullLiteral>]
type FragmentTable(capacity: int, maxBytes: int, timeoutMs: int64<ms>) =
    static let maxPacket = 65535 // bytes: IPv4 total length
    static let minBuffer = 2048 // bytes: holds a full-size packet
    static let maxSpare = 16 // emptied entries kept for the next packets

    let packets = Dictionary<uint16, LinkedListNode<PartialPacket>>()
    let byAge = LinkedList<PartialPacket>() // oldest first
    let spare = Stack<LinkedListNode<PartialPacket>>()
    let mutable held = 0

    let drop (node: LinkedListNode<PartialPacket>) =
        packets.Remove node.Value.Id |> ignore
        byAge.Remove node
        held <- held - node.Value.Capacity
        node.Value.Reset()

        if spare.Count < maxSpare then
            spare.Push node

    let create (id: uint16, now: int64<ms>) =
        if packets.Count > 0 && packets.Count >= capacity then
            drop byAge.First

        let node =
            if spare.Count > 0 then
                spare.Pop()
            else
                LinkedListNode(PartialPacket())

        node.Value.Id <- id
        node.Value.CreatedAt <- now
        byAge.AddLast node
        packets.Add(id, node)
        node

    // Makes the packet's buffer reach `finish`, at the cost of older packets; false when the budget is too small for it
    // alone.
    let fit (node: LinkedListNode<PartialPacket>, finish: int) =
        let wanted = max minBuffer (int (BitOperations.RoundUpToPowerOf2(uint32 finish)))
        let growth = wanted - node.Value.Capacity

        if growth <= 0 then
            true
        else
            while held + growth > maxBytes && packets.Count > 1 do
                let oldest = byAge.First

                drop (
                    if Object.ReferenceEquals(oldest, node) then
                        oldest.Next
                    else
                        oldest
                )

            let fits = held + growth <= maxBytes

            if fits then
                held <- held - node.Value.Capacity
                node.Value.Grow wanted
                held <- held + node.Value.Capacity

            fits

    /// Total size of the buffers held, in bytes.
    member _.BytesHeld: int = held

    /// When `Expire` has something to drop; `Time.Never` while nothing is held.
    member _.ExpiresAt: int64<ms> =
        if byAge.Count = 0 then
            Time.Never
        else
            byAge.First.Value.CreatedAt + timeoutMs

    /// Drops the packets whose time is over; `Add` does this too.
    member _.Expire(now: int64<ms>) : unit =
        while byAge.Count > 0 && now - byAge.First.Value.CreatedAt >= timeoutMs do
            drop byAge.First

    /// Adds a piece: `offset` in bytes, `more` when others follow it. On `Complete` the packet is the first
    /// `length` bytes of `dst`, and its id is free again. A `dst` shorter than the packet makes it `Invalid`: give it
    /// 65535 bytes. Precondition: `offset` is not negative.
    member this.Add
        (
            id: uint16,
            offset: int,
            more: bool,
            payload: ReadOnlySpan<byte>,
            now: int64<ms>,
            dst: Span<byte>,
            length: byref<int>
        ) : FragmentStatus =
        this.Expire now
        let finish = offset + payload.Length
        let mutable node = null

        if not (packets.TryGetValue(id, &node)) then
            node <- create (id, now)

        let status =
            if payload.IsEmpty || finish > maxPacket || not (fit (node, finish)) then
                FragmentStatus.Invalid
            else
                node.Value.Add(offset, more, payload)

        length <-
            if status = FragmentStatus.Complete then
                node.Value.CopyTo dst
            else
                0

        if status <> FragmentStatus.Stored then
            drop node

        if length < 0 then
            length <- 0
            FragmentStatus.Invalid
        else
            status
