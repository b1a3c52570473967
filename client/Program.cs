using Lightway.Client;
using Lightway.Client.Control;
using Lightway.Hosting;
using Lightway.Options;

var outcome = Read();
if (outcome.Kind == OutcomeKind.Status)
{
    return StatusCommand.Run(outcome.Status, Console.Out, Console.Error);
}
if (outcome.Kind == OutcomeKind.Reset)
{
    return ResetCommand.Run(Console.Out, Console.Error);
}
using var live = outcome.Kind == OutcomeKind.Run ? LiveLine.TryInstall() : null;
return Entry.Run(
    outcome,
    "lightway-client",
    options => Logging.Create(LogFormat.Full, options.LogLevel),
    (options, log) => ClientHost.Run(options, log, live, Read),
    ClientHost.Check
);

ParseOutcome<ClientOptions> Read() => ClientOptions.Parse(args, Environment.GetEnvironmentVariable, File.ReadAllText);
