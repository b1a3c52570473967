using System.Buffers.Binary;
using Lightway.Protocol;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Workers;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// Draws session ids: 8 bytes of the system's generator, never a reserved value. The remainder of the lower 32 bits is the
/// number of the worker that drew them: the kernel steers a datagram to its worker by it (<see cref="Udp.ReusePort"/>).
/// </summary>
/// <param name="worker">Number of the worker, from 0.</param>
/// <param name="workers">How many there are.</param>
/// <param name="random">Null: one of its own.</param>
public sealed class SessionIdSource(int worker, int workers, RandomPool? random = null)
{
    private readonly RandomPool _random = random ?? new RandomPool();

    /// <summary>Number of the worker, from 0.</summary>
    public int WorkerNumber => worker;

    public SessionId Draw()
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        ulong number;
        do
        {
            _random.Fill(bytes);
            number = BinaryPrimitives.ReadUInt64BigEndian(bytes);
        } while (SessionIdModule.isReserved(new(number)) || (uint)number == 0 || (uint)number % workers != worker);
        return new SessionId(number);
    }
}
