namespace Lightway.Protocol

open System.Runtime.CompilerServices

/// A session id: 8 opaque bytes chosen by the server.
[<Struct; IsReadOnly; NoComparison>]
type SessionId(value: uint64) =
    /// The number that the 8 bytes spell in network order.
    member _.Value: uint64 = value

    /// The client has no session yet: `00` eight times.
    static member Empty: SessionId = SessionId 0UL

    /// The server does not know the session: `ff` eight times.
    static member Rejected: SessionId = SessionId 0xFFFF_FFFF_FFFF_FFFFUL

    /// The same 8 bytes; C# writes `==`.
    static member op_Equality(left: SessionId, right: SessionId) : bool = left.Value = right.Value

    /// Other bytes; C# writes `!=`.
    static member op_Inequality(left: SessionId, right: SessionId) : bool = left.Value <> right.Value

    /// 16 lower-case hexadecimal digits, for logs. Allocates.
    override _.ToString() : string = value.ToString "x16"

[<RequireQualifiedAccess>]
module SessionId =
    /// True for the two values that no server may assign.
    let isReserved (id: SessionId) : bool =
        id.Value = SessionId.Empty.Value || id.Value = SessionId.Rejected.Value

    /// 16 lower-case hexadecimal digits, for logs. Allocates.
    let format (id: SessionId) : string = id.ToString()
