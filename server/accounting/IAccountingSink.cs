namespace Lightway.Server.Accounting;

/// <summary>Where lines of accounting go. One thread.</summary>
internal interface IAccountingSink : IDisposable
{
    /// <summary>Writes a line, whole or not at all as far as its reader can tell.</summary>
    /// <exception cref="IOException">It is not written; the message says why.</exception>
    void Write(ReadOnlySpan<byte> line);

    /// <summary>Forgets what is open, so that the next line goes to the file that has the name then.</summary>
    void Reopen();
}
