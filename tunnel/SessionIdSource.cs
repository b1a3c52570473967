using System.Buffers.Binary;
using System.Security.Cryptography;
using Lightway.Protocol;

namespace Lightway.Tunnel;

/// <summary>Draws session ids: 8 bytes of the system's generator, none of the reserved values.</summary>
public static class SessionIdSource
{
    public static ulong Draw()
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        ulong id;
        do
        {
            RandomNumberGenerator.Fill(bytes);
            id = BinaryPrimitives.ReadUInt64BigEndian(bytes);
        } while (SessionId.isReserved(id));
        return id;
    }
}
