namespace Lightway.Segmenter

open System
open System.Net
open System.Runtime.CompilerServices

/// An IPv4 address, ordered as the number that it spells. The default value is `None`.
[<Struct; IsReadOnly>]
type Ipv4Address(value: uint32) =
    /// The number in host order: 10.0.0.1 is 0x0A000001.
    member _.Value: uint32 = value

    /// No address: 0.0.0.0.
    static member None: Ipv4Address = Ipv4Address 0u

    member _.IsNone: bool = (value = 0u)

    /// For code that sets something up: allocates. Raises ArgumentException for an address that is not IPv4.
    static member Of(address: IPAddress) : Ipv4Address =
        let bytes = address.GetAddressBytes()

        if bytes.Length <> 4 then
            invalidArg (nameof address) $"{address} is not an IPv4 address"

        Ipv4Address(read32 (ReadOnlySpan bytes, 0))

    /// The same address as .NET has it. Allocates.
    member _.ToIPAddress() : IPAddress =
        let bytes: byte[] = Array.zeroCreate 4
        put32 (Span bytes, 0, value)
        IPAddress bytes

    /// The same address; C# writes `==`.
    static member op_Equality(left: Ipv4Address, right: Ipv4Address) : bool = left.Value = right.Value

    /// Another address; C# writes `!=`.
    static member op_Inequality(left: Ipv4Address, right: Ipv4Address) : bool = left.Value <> right.Value

    /// Dotted decimal. Allocates.
    override _.ToString() : string =
        $"{value >>> 24}.{value >>> 16 &&& 0xFFu}.{value >>> 8 &&& 0xFFu}.{value &&& 0xFFu}"
