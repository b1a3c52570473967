using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Tcp;

/// <summary>A user of a TCP connection, called by its worker's <see cref="StreamLoop"/>, on the worker's thread.</summary>
public interface IStream
{
    /// <summary>Something has come, or the connection has ended.</summary>
    void OnReadable(long now);

    /// <summary>The socket takes bytes again, or connecting has succeeded or failed.</summary>
    void OnWritable(long now);

    /// <summary>Sends what has been put together since the worker woke up.</summary>
    void Flush(long now);
}

/// <summary>
/// The TCP connections of one worker: which of them is ready, and which has something to send. What arrives within a
/// wake-up is served connection by connection, a limited number of bytes of each, so that none waits for another's flood.
/// One thread.
/// </summary>
public sealed class StreamLoop(Epoll epoll) : IDisposable
{
    /// <summary>Bytes that are read of a connection per wake-up.</summary>
    internal const int ReceiveSize = 128 * 1024;

    /// <summary>Bytes of the longest frame: a Data frame's header and the longest IPv4 packet.</summary>
    internal const int MaxFrame = 3 + 65535;

    private List<StreamWatch> _ready = [];
    private List<StreamWatch> _dirty = [];
    private List<StreamWatch> _served = []; // the list that is being gone through
    private Slab? _input;
    private Slab? _plaintext;

    /// <summary>Takes what a socket has received, during a call of <see cref="IStream.OnReadable"/>.</summary>
    internal Slab Input => _input ??= new Slab(ReceiveSize);

    /// <summary>Takes decrypted bytes behind the beginning of a frame that came before.</summary>
    internal Slab Plaintext => _plaintext ??= new Slab(MaxFrame + ReceiveSize);

    /// <summary>Memory for what connections send.</summary>
    internal StreamBuffers Buffers { get; } = new();

    /// <summary>Begins to watch a socket for reading.</summary>
    public StreamWatch Watch(StreamSocket socket, IStream stream) => new(this, epoll, socket, stream);

    /// <summary>Serves the connections that the latest wait has found ready.</summary>
    public void Run(long now)
    {
        if (_ready.Count == 0)
        {
            return;
        }
        (_ready, _served) = (_served, _ready);
        foreach (var watch in _served)
        {
            watch.Serve(now);
        }
        _served.Clear();
    }

    /// <summary>Sends what the connections have put together.</summary>
    public void Flush(long now)
    {
        while (_dirty.Count > 0) // a connection that ends may make another one say something
        {
            (_dirty, _served) = (_served, _dirty);
            foreach (var watch in _served)
            {
                watch.Flush(now);
            }
            _served.Clear();
        }
    }

    public void Dispose()
    {
        _input?.Dispose();
        _plaintext?.Dispose();
        Buffers.Dispose();
    }

    internal void AddReady(StreamWatch watch) => _ready.Add(watch);

    internal void AddDirty(StreamWatch watch) => _dirty.Add(watch);
}

/// <summary>One socket in a <see cref="StreamLoop"/>. One thread.</summary>
public sealed class StreamWatch : IReadyHandler, IDisposable
{
    private readonly StreamLoop _loop;
    private readonly Epoll _epoll;
    private readonly StreamSocket _socket;
    private readonly IStream _stream;
    private Readiness _interest = Readiness.Read;
    private Readiness _ready;
    private bool _isDirty;
    private bool _isDisposed;
    private int _token;

    internal StreamWatch(StreamLoop loop, Epoll epoll, StreamSocket socket, IStream stream)
    {
        _loop = loop;
        _epoll = epoll;
        _socket = socket;
        _stream = stream;
        _token = epoll.Add(socket.Fd, this);
    }

    /// <summary>Changes what the socket is watched for. None: not even the end of the connection is reported.</summary>
    public void Want(Readiness interest)
    {
        if (interest == _interest || _isDisposed)
        {
            return;
        }
        if (interest == Readiness.None)
        {
            _epoll.Remove(_socket.Fd, _token); // epoll always reports hang-ups of what it watches
        }
        else
        {
            if (_interest == Readiness.None)
            {
                _token = _epoll.Add(_socket.Fd, this);
            }
            _epoll.Watch(_socket.Fd, _token, interest);
        }
        _interest = interest;
    }

    /// <summary>The stream has something to send: <see cref="IStream.Flush"/> is called before the worker waits.</summary>
    public void MarkDirty()
    {
        if (!_isDirty)
        {
            _isDirty = true;
            _loop.AddDirty(this);
        }
    }

    /// <summary>Forgets the socket, which must be open still. Its stream is not called again.</summary>
    public void Dispose()
    {
        Want(Readiness.None);
        _isDisposed = true;
    }

    void IReadyHandler.OnReady(Readiness readiness)
    {
        if (_ready == Readiness.None)
        {
            _loop.AddReady(this);
        }
        _ready |= readiness;
    }

    internal void Serve(long now)
    {
        var ready = _ready & _interest;
        _ready = Readiness.None;
        if ((ready & Readiness.Write) != 0 && !_isDisposed)
        {
            _stream.OnWritable(now);
        }
        if ((ready & Readiness.Read) != 0 && !_isDisposed)
        {
            _stream.OnReadable(now);
        }
    }

    internal void Flush(long now)
    {
        _isDirty = false;
        if (!_isDisposed)
        {
            _stream.Flush(now);
        }
    }
}
