using System.Text;
using Spectre.Console;

namespace Lightway.Client.Control;

/// <summary>
/// Standard output of a client on a terminal: the log, and below it one line that always shows the latest state. What others
/// write to <see cref="Console.Out"/> appears above that line. Safe from any thread.
/// </summary>
internal sealed class LiveLine : TextWriter
{
    private const string Erase = "\r\e[2K"; // ECMA-48: carriage return, EL 2
    private readonly Lock _writing = new();
    private readonly TextWriter _terminal;
    private readonly IAnsiConsole _console;
    private string _line = "";
    private bool _isShown;
    private bool _isMidLine; // the log has begun a line

    internal LiveLine(TextWriter terminal, IAnsiConsole console)
    {
        _terminal = terminal;
        _console = console;
    }

    public override Encoding Encoding => _terminal.Encoding;

    /// <summary>Takes the place of <see cref="Console.Out"/>, before a log is made; null where nobody would see the line.</summary>
    public static LiveLine? TryInstall()
    {
        if (Console.IsOutputRedirected)
        {
            return null;
        }
        var terminal = Console.Out;
        var console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(terminal) });
        if (!console.Profile.Capabilities.Ansi)
        {
            return null; // TERM=dumb
        }
        var live = new LiveLine(terminal, console);
        Console.SetOut(live);
        return live;
    }

    /// <summary>Shows another line.</summary>
    public void Show(ClientStatus status)
    {
        var text = StatusText.Brief(status);
        var colour = status.Connection is null ? "yellow" : "green";
        lock (_writing)
        {
            // One column less than there are: a full line would wrap on some terminals.
            var room = Math.Max(10, _console.Profile.Width - 1);
            _line = $"[{colour}]{Markup.Escape(text.Length > room ? text[..room] : text)}[/]";
            Hide();
            Draw();
            _terminal.Flush();
        }
    }

    public override void Write(char value) => Write(value.ToString());

    public override void Write(string? value)
    {
        if (string.IsNullOrEmpty(value))
        {
            return;
        }
        lock (_writing)
        {
            Hide();
            _terminal.Write(value);
            _isMidLine = !value.EndsWith('\n');
            Draw();
            _terminal.Flush();
        }
    }

    public override void Write(char[] buffer, int index, int count) => Write(new string(buffer, index, count));

    public override void Flush() => _terminal.Flush();

    /// <summary>Leaves the terminal with a clean last line.</summary>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            lock (_writing)
            {
                Hide();
                _line = "";
                _terminal.Flush();
            }
        }
        base.Dispose(disposing);
    }

    private void Hide()
    {
        if (_isShown)
        {
            _terminal.Write(Erase);
            _isShown = false;
        }
    }

    private void Draw()
    {
        if (_line.Length > 0 && !_isMidLine)
        {
            _console.Markup(_line);
            _isShown = true;
        }
    }
}
