using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Tcp;

/// <summary>
/// Memory of fixed size for what the connections of a worker send. A connection has some only while it has something to
/// send: thousands that are idle have none. One thread.
/// </summary>
internal sealed class StreamBuffers : IDisposable
{
    private const int Kept = 16; // that nobody uses
    private const int Limit = 1024; // about 150 MB
    private readonly Stack<Slab> _free = [];
    private int _lent;

    /// <summary>Many are lent, to peers that don't read what they get: packets for others than these are dropped.</summary>
    public bool IsExhausted => _lent >= Limit;

    /// <summary>Lends a buffer.</summary>
    public Slab Take(int length)
    {
        _lent++;
        return _free.TryPop(out var buffer) ? buffer : new Slab(length);
    }

    public void Return(Slab buffer)
    {
        _lent--;
        if (_free.Count < Kept)
        {
            _free.Push(buffer);
        }
        else
        {
            buffer.Dispose();
        }
    }

    public void Dispose()
    {
        while (_free.TryPop(out var buffer))
        {
            buffer.Dispose();
        }
    }
}
