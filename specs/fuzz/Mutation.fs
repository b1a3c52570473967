/// Changes to inputs. What breaks a parser is mostly a length that lies, a cut, or a number at an edge.
module Lightway.Fuzz.Mutation

open System
open System.Buffers.Binary

/// Edges of fields and of the formats: header lengths, limits of texts and tokens, the replay window, signs.
let private numbers =
    [| 0
       1
       2
       4
       7
       8
       15
       16
       20
       23
       24
       39
       40
       45
       50
       51
       60
       63
       64
       104
       105
       127
       128
       255
       256
       536
       1345
       1346
       1347
       1348
       1349
       1460
       1500
       8191
       8192
       16383
       32767
       32768
       65507
       65528
       65534
       65535 |]

/// A place in `length` bytes, every second time among the first 64: there are the headers.
let private place (random: Random) (length: int) : int =
    random.Next(if random.Next 2 = 0 then min length 64 else length)

let private changed (bytes: byte[]) (change: byte[] -> unit) : byte[] =
    let copy = Array.copy bytes
    change copy
    copy

/// Writes 16 bits at `at`, or as many of them as there is room for.
let private put16 (random: Random) (value: int) (at: int) (bytes: byte[]) =
    let spelled: byte[] = Array.zeroCreate 2

    if random.Next 4 = 0 then
        BinaryPrimitives.WriteUInt16LittleEndian(Span spelled, uint16 value)
    else
        BinaryPrimitives.WriteUInt16BigEndian(Span spelled, uint16 value)

    Array.blit spelled 0 bytes at (min 2 (bytes.Length - at))

/// One change of an input with at least one byte; `other` is what a splice takes its tail from.
let private change (random: Random) (bytes: byte[]) (other: byte[]) : byte[] =
    let at = place random bytes.Length

    match random.Next 12 with
    | 0 -> changed bytes (fun copy -> copy[at] <- copy[at] ^^^ (1uy <<< random.Next 8))
    | 1 -> changed bytes (fun copy -> copy[at] <- byte (random.Next 256))
    | 2 -> changed bytes (fun copy -> copy[at] <- byte numbers[random.Next numbers.Length])
    | 3 -> changed bytes (put16 random numbers[random.Next numbers.Length] at)
    | 4 -> changed bytes (fun copy -> copy[at] <- copy[at] + byte (random.Next(-4, 5)))
    | 5 -> changed bytes (put16 random (bytes.Length - at + random.Next(-4, 3)) at) // a length that is nearly right
    | 6 -> // 64 bits at an edge: counters
        changed bytes (fun copy ->
            let value = if random.Next 2 = 0 then 0uy else 0xFFuy
            Array.fill copy at (min 8 (copy.Length - at)) value)
    | 7 -> bytes[.. at - 1]
    | 8 ->
        let tail: byte[] = Array.zeroCreate (1 + random.Next 64)
        random.NextBytes tail
        Array.append bytes tail
    | 9 -> // a piece twice, or not at all
        let finish = min bytes.Length (at + 1 + random.Next 16)
        let start = if random.Next 2 = 0 then at else finish

        Array.append bytes[.. finish - 1] bytes[start..]
        |> fun copy ->
            if start = at then
                copy
            else
                Array.removeManyAt at (finish - at) bytes
    | 10 -> Array.append bytes[.. at - 1] other[min at other.Length ..]
    | _ -> Array.append bytes other

/// One to eight changes; never more than `maxLength` bytes.
let mutate (random: Random) (maxLength: int) (bytes: byte[]) (other: byte[]) : byte[] =
    let mutable result = bytes

    for _ in 0 .. random.Next(1 <<< random.Next 4) do
        result <-
            if result.Length = 0 then
                [| byte (random.Next 256) |]
            else
                change random result other

    Array.truncate maxLength result
