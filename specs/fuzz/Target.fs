/// Targets of the fuzzer: functions of bytes that check what must hold for any input.
module Lightway.Fuzz.Target

open System.Numerics

/// An invariant does not hold.
exception Broken of what: string

let broken (what: string) = raise (Broken what)

/// For texts that cost nothing; others are made where they are needed, with `broken`.
let require (holds: bool) (what: string) : unit =
    if not holds then
        raise (Broken what)

type Target =
    {
        /// Also the name of its folder in the corpus.
        Name: string
        /// Bytes of the longest input.
        MaxLength: int
        /// Raises for a broken invariant, else returns the kind of the input's outcome: the status and whatever
        /// distinguishes one path through the code from another. Inputs of a kind not seen before are kept and changed
        /// further.
        Run: byte[] -> int64
    }

/// One number for a kind of outcome, the same in every process.
let kind (traits: int list) : int64 =
    List.fold (fun hash value -> (hash ^^^ int64 value) * 0x100000001B3L) 0x4BF29CE484222325L traits // FNV-1a

let flag (value: bool) : int = if value then 1 else 0

/// Coarse size: 0, then one more for each doubling.
let magnitude (value: int) : int =
    if value <= 0 then
        0
    else
        1 + BitOperations.Log2(uint32 value)

/// `length` bytes that mean "not written".
let junk (length: int) : byte[] = Array.create length 0xA5uy

let isJunk (bytes: byte[]) : bool = Array.forall ((=) 0xA5uy) bytes
