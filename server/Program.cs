using Lightway.Hosting;
using Lightway.Options;
using Lightway.Server;
using Lightway.Server.Control;
using Lightway.Server.Host;
using Lightway.Server.Setup;

var outcome = Parse();
return outcome.Kind switch
{
    OutcomeKind.Init => Init.Run(outcome.Init, Console.Out, Console.Error),
    OutcomeKind.SetUpHost => SetUpHost.Run(outcome.Host, Console.Out, Console.Error),
    OutcomeKind.Control => ControlClient.Run(outcome.Control, Console.Out, Console.Error),
    _ => Entry.Run(
        outcome,
        "lightway-server",
        options => Logging.Create(options.LogFormat, options.LogLevel),
        (options, log) => ServerHost.Run(options, Parse, log),
        StartFiles.Check
    ),
};

ParseOutcome<ServerOptions> Parse() => ServerOptions.Parse(args, Environment.GetEnvironmentVariable, File.ReadAllText);
