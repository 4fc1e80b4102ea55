%% Erlang/OTP's side: one long-running node, driven by lines.
%%
%% A line in is a command with its numbers; the line out is `ok WALL_NS CPU_MS P50_NS P99_NS`, or
%% `ok BYTES` for a command about memory. CPU is that of the whole node. Each command runs in a
%% process of its own, so that no garbage of one round is collected in the next.
-module(otp_peer).
-export([main/0, run/2]).
-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

main() ->
    %% Crash reports would measure the console.
    logger:set_primary_config(level, none),
    io:format("ready ~s ~s ~s~n", [
        erlang:system_info(otp_release),
        erlang:system_info(version),
        erlang:system_info(emu_flavor)
    ]),
    lines().

lines() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            [Command | Numbers] = string:lexemes(Line, " \n"),
            Args = [list_to_atom(Command), [list_to_integer(Number) || Number <- Numbers]],
            %% Room for the times of each operation, so that collecting them is not measured.
            Options = [monitor, {min_heap_size, 2000000}],
            {Pid, Monitor} = spawn_opt(?MODULE, run, Args, Options),
            receive
                {'DOWN', Monitor, process, Pid, {ok, Figures}} ->
                    io:format("ok~s~n", [[[" ", integer_to_list(F)] || F <- Figures]]);
                {'DOWN', Monitor, process, Pid, Reason} ->
                    io:format("error ~0p~n", [Reason])
            end,
            lines();
        _ ->
            halt()
    end.

run(Command, Numbers) ->
    exit({ok, command(Command, Numbers)}).

%% Tells a bare process, the least that OTP can do.
command(tell, [Count, Senders, Value]) ->
    Receiver = spawn_link(fun() -> receiver(0) end),
    measured(fun() ->
        flood_all(Count, Senders, fun(Each, Batch) -> flood(Receiver, Each, Batch, Value) end),
        Receiver ! {ask, self()},
        receive {total, Total} -> Total = Count * Value end,
        []
    end);
%% The same through `gen_server:cast`, which is what an application would write.
command(cast, [Count, Senders, Value]) ->
    {Supervisor, Server} = supervised(),
    Figures = measured(fun() ->
        flood_all(Count, Senders, fun(Each, Batch) -> cast(Server, Each, Batch, Value) end),
        Total = Count * Value,
        Total = gen_server:call(Server, ask, infinity),
        []
    end),
    stop(Supervisor),
    Figures;
command(ask, [Count]) ->
    {Supervisor, Server} = supervised(),
    Figures = measured(fun() ->
        times(Count, fun() -> gen_server:call(Server, ask) end)
    end),
    stop(Supervisor),
    Figures;
command(spawn, [Count]) ->
    {Supervisor, _} = supervised(),
    Figures = measured(fun() ->
        repeat(Count, fun() -> {ok, _} = supervisor:start_child(Supervisor, []) end),
        []
    end),
    stop(Supervisor),
    Figures;
%% A new supervisor for every 100 crashes: OTP keeps each restart within the period in a list and
%% walks it at the next one.
command(crash, [Count, Panics]) ->
    How = case Panics of 0 -> fail; 1 -> panic end,
    measured(fun() -> crashes(Count, How) end);
%% Growth of the node per child.
command(grow, [Count]) ->
    {Supervisor, _} = supervised(),
    grown(Count, fun() -> {ok, _} = supervisor:start_child(Supervisor, []) end);
command(bare, [Count]) ->
    grown(Count, fun() -> spawn_link(fun() -> receiver(0) end) end).

%% ---- Flow: at most 1,024 messages on their way, as in a bounded mailbox. A sender asks for an
%% acknowledgement with every half of its share and waits while two are due.

flood_all(Count, Senders, Flood) ->
    Each = Count div Senders,
    Batch = 512 div Senders,
    Others = [spawn_monitor(fun() -> Flood(Each, Batch) end) || _ <- lists:seq(2, Senders)],
    Flood(Each, Batch),
    [receive {'DOWN', Monitor, _, _, normal} -> ok end || {_, Monitor} <- Others].

flood(To, Count, Batch, Value) -> flood(To, Count, Batch, Value, 0).

flood(_, 0, _, _, Due) ->
    acknowledged(Due);
flood(To, Count, Batch, Value, Due) when Due < 2 ->
    Now = min(Count, Batch),
    send(To, Now - 1, Value),
    To ! {add, Value, self()},
    flood(To, Count - Now, Batch, Value, Due + 1);
flood(To, Count, Batch, Value, Due) ->
    acknowledged(1),
    flood(To, Count, Batch, Value, Due - 1).

send(_, 0, _) -> ok;
send(To, Count, Value) -> To ! {add, Value}, send(To, Count - 1, Value).

cast(To, Count, Batch, Value) -> cast(To, Count, Batch, Value, 0).

cast(_, 0, _, _, Due) ->
    acknowledged(Due);
cast(To, Count, Batch, Value, Due) when Due < 2 ->
    Now = min(Count, Batch),
    repeat(Now - 1, fun() -> gen_server:cast(To, {add, Value}) end),
    gen_server:cast(To, {add, Value, self()}),
    cast(To, Count - Now, Batch, Value, Due + 1);
cast(To, Count, Batch, Value, Due) ->
    acknowledged(1),
    cast(To, Count, Batch, Value, Due - 1).

acknowledged(0) -> ok;
acknowledged(Due) -> receive ack -> acknowledged(Due - 1) end.

receiver(Total) ->
    receive
        {add, Value} -> receiver(Total + Value);
        {add, Value, From} -> From ! ack, receiver(Total + Value);
        {ask, From} -> From ! {total, Total}, receiver(Total)
    end.

%% ---- Lives.

crashes(0, _) ->
    [];
crashes(Count, How) ->
    {Supervisor, Server} = supervised(self()),
    Now = min(Count, 100),
    Times = crash(Now, How, Server),
    stop(Supervisor),
    Times ++ crashes(Count - Now, How).

crash(0, _, _) ->
    [];
crash(Count, How, Server) ->
    Began = erlang:monotonic_time(nanosecond),
    gen_server:cast(Server, How),
    Next = receive {up, Pid} -> Pid end,
    _ = gen_server:call(Next, ask),
    Took = erlang:monotonic_time(nanosecond) - Began,
    [Took | crash(Count - 1, How, Next)].

%% A supervisor with one child.
supervised() -> supervised(nobody).

%% The same, where `Told` hears of each life.
supervised(Told) ->
    Child = #{
        id => worker,
        start => {gen_server, start_link, [?MODULE, {worker, Told}, []]},
        restart => permanent,
        shutdown => brutal_kill
    },
    {ok, Supervisor} = supervisor:start_link(?MODULE, {supervisor, Child}),
    unlink(Supervisor),
    {ok, Server} = supervisor:start_child(Supervisor, []),
    receive {up, Server} -> ok after 0 -> ok end,
    {Supervisor, Server}.

stop(Supervisor) ->
    Monitor = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Monitor, process, _, _} -> ok end.

init({supervisor, Child}) ->
    Flags = #{strategy => simple_one_for_one, intensity => 1000000, period => 1},
    {ok, {Flags, [Child]}};
init({worker, nobody}) ->
    {ok, 0};
init({worker, Told}) ->
    Told ! {up, self()},
    {ok, 0}.

handle_call(ask, _, Total) -> {reply, Total, Total}.

handle_cast({add, Value}, Total) -> {noreply, Total + Value};
handle_cast({add, Value, From}, Total) -> From ! ack, {noreply, Total + Value};
handle_cast(fail, Total) -> {stop, told_to, Total};
handle_cast(panic, _) -> error(told_to).

handle_info(_, Total) -> {noreply, Total}.

%% ---- Measuring.

measured(Run) ->
    {Cpu, _} = statistics(runtime),
    Wall = erlang:monotonic_time(nanosecond),
    Each = Run(),
    Took = erlang:monotonic_time(nanosecond) - Wall,
    {Used, _} = statistics(runtime),
    Sorted = list_to_tuple(lists:sort(Each)),
    [Took, Used - Cpu, at(Sorted, 50), at(Sorted, 99)].

at({}, _) -> 0;
at(Sorted, Percent) -> element(1 + (tuple_size(Sorted) - 1) * Percent div 100, Sorted).

times(0, _) ->
    [];
times(Count, Run) ->
    Began = erlang:monotonic_time(nanosecond),
    Run(),
    Took = erlang:monotonic_time(nanosecond) - Began,
    [Took | times(Count - 1, Run)].

repeat(0, _) -> ok;
repeat(Count, Run) -> Run(), repeat(Count - 1, Run).

%% Resident bytes each, by what the node has grown.
grown(Count, Start) ->
    Before = resident(),
    repeat(Count, Start),
    [(resident() - Before) div Count].

resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:lexemes(Text, " "),
    binary_to_integer(Pages) * 4096.
