using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Filters;
using Lightway.Tunnel.Workers;

namespace Lightway.Server.Addresses;

/// <summary>Which connection has which inside address, of all workers: an array by offset in the pool. Any thread reads.</summary>
/// <param name="addresses">Size of the pool.</param>
/// <param name="steering">What chooses TUN queues by it; null: the kernel does.</param>
public sealed class InsideDirectory(int addresses, QueueSteering? steering)
{
    private readonly Connection?[] _connections = new Connection?[addresses];

    /// <param name="offset">Offset of the inside address in the pool; anything outside the pool finds nothing.</param>
    public Connection? this[int offset] =>
        (uint)offset < (uint)_connections.Length ? Volatile.Read(ref _connections[offset]) : null;

    /// <summary>Only the worker that was given the address sets it.</summary>
    public void Set(int offset, Connection? connection)
    {
        Volatile.Write(ref _connections[offset], connection);
        if (connection is not null)
        {
            steering?.Set(offset, connection.Home.Ids.WorkerNumber);
        }
    }
}
