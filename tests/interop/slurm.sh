#!/usr/bin/env bash
# A sweep as a job array of a real Slurm: a controller and two node daemons on this machine. One task is killed, one is
# requeued by Slurm and then warned of the end of its time; the models must be those of the sweep in one process, byte by
# byte. Needs root, Debian's slurm-wlm and munge (installed if missing), and deno. Ends with "N passed, N failed".
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
host=$(hostname)
passed=0
failed=0

if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge >"$folder/apt.log" 2>&1 ||
    { tail "$folder/apt.log"; exit 1; }
fi

mkdir -p "$folder"/{munge,state,log,tmp,data}
stop() {
  for name in slurmd.a slurmd.b slurmctld munge/pid; do
    [ -s "$folder/$name" ] && kill "$(cat "$folder/$name")" 2>/dev/null
  done
  sleep 1
  rm -rf "$folder"
}
trap stop EXIT

check() {
  local what=$1
  shift
  if "$@"; then passed=$((passed + 1)) && echo "ok      $what"; else failed=$((failed + 1)) && echo "FAILED  $what"; fi
}

# Waits at most two minutes.
until_true() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.2
  done
  echo "waited in vain for: $*"
  return 1
}

chmod 700 "$folder/munge"
dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 2>/dev/null
chmod 600 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
  --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

cat >"$folder/slurm.conf" <<EOF
ClusterName=saev
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld
SlurmdPidFile=$folder/slurmd.%n
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SelectType=select/linear
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName=a NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=1000
NodeName=b NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=1000
PartitionName=main Nodes=a,b Default=YES State=UP MaxTime=INFINITE
EOF
export SLURM_CONF=$folder/slurm.conf
mkdir -p "$folder/spool.a" "$folder/spool.b"
slurmctld
slurmd -N a
slurmd -N b
until_true sh -c 'test "$(sinfo -h -N -t idle | wc -l)" = 2' || { tail "$folder"/log/*; exit 1; }
sinfo --version
sinfo -N

saev() { deno run --quiet -A "$root/cli/mod.ts" "$@"; }
cd "$folder" || exit 1
export TMPDIR=$folder/tmp XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
deno run --quiet -A - <<EOF
import { writeNpy } from "$root/io/npy.ts";
import { Random } from "$root/tests/support/random.ts";
Deno.writeFileSync("data/a.npy", writeNpy({ data: new Random(1).normal(4000 * 16), rows: 4000, cols: 16 }));
EOF
cat >sweep.toml <<EOF
data.path = "data/a.npy"
sae = { d_sae = 64, activation = { key = "top-k", top_k = 4 } }
[train]
batch_size = 256
n_steps = 2000
lr = [1e-3, 1e-2]
seed = [1, 2]
checkpoint_every = 100
[slurm]
gpus = 0
time = "30:00"
memory = "800M"
partition = "main"
allow_software = true
EOF

saev train sweep.toml --out local 2>"$folder/local.log" || { cat "$folder/local.log"; exit 1; }
job=$(saev train sweep.toml --slurm --submit --out array)
echo "job $job"
squeue -h -o "%i %P %l %m %T"

step_of() { python3 -c '
import json, struct, sys
with open(sys.argv[1], "rb") as f:
    (size,) = struct.unpack("<Q", f.read(8))
    print(json.loads(json.loads(f.read(size))["__metadata__"]["saev_nn_training"])["state"]["step"])' "$1"; }
has_state() { [ "$(step_of "array/$1/training.safetensors")" -gt "${2:-0}" ]; }
is() { [ "$(squeue -h -r -j "${job}_$1" -o %T)" = "$2" ]; }
is_over() { ! squeue -h -r -j "${job}_$1" -o %T 2>/dev/null | grep -q RUNNING; }
starts() { scontrol update "JobId=${job}_$1" StartTime=now; is "$1" RUNNING; }
start_again() { until_true starts "$1"; }
# The processes of a run: saev, which its lock names, and the script that started it.
kill_run() {
  local saev
  saev=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "array/$1/run.lock")
  kill -KILL "$(ps -o ppid= -p "$saev" | tr -d ' ')" "$saev"
}

# Task 0 is killed, saev and the script, as by a machine that loses power; then it is queued again.
until_true has_state 0
kill_run 0
until_true is_over 0
killed=$(step_of array/0/training.safetensors)
check "task 0 was killed in the middle, with a checkpoint of step $killed" test "$killed" -gt 0 -a "$killed" -lt 2000
saev collect array
check "collect says that the sweep is not whole" test $? = 1
scontrol requeue "${job}_0"
start_again 0

# Task 1 is requeued while it runs, as when it makes room for another job. Slurm sends SIGTERM first.
until_true has_state 1
scontrol requeue "${job}_1"
until_true is_over 1
requeued=$(step_of array/1/training.safetensors)
check "task 1 was requeued in the middle, with a checkpoint of step $requeued" test "$requeued" -gt 0 -a "$requeued" -lt 2000
start_again 1

# Once more it runs, and is told that its time is nearly up: the script itself queues it again.
until_true has_state 1 "$requeued"
scancel --signal=USR1 --batch "${job}_1"
until_true is_over 1
warned=$(step_of array/1/training.safetensors)
check "task 1 was out of time, with a checkpoint of step $warned" test "$warned" -gt "$requeued" -a "$warned" -lt 2000
start_again 1

until_true sh -c "! squeue -h | grep -q ."
for log in array/slurm-*.log; do
  echo "== $log"
  grep -E "^(task|copying|stopped|ended|error)|steps of" "$log"
done
saev collect array
check "collect says that the sweep is whole" test $? = 0
for run in 0 1 2 3; do
  check "run $run is byte for byte that of one process" cmp "array/$run/sae.pt" "local/$run/sae.pt"
  check "its state too" cmp "array/$run/training.safetensors" "local/$run/training.safetensors"
done
check "no copy of the rows is left" test "$(find tmp -name 'saev-*' | wc -l)" = 0

job=$(saev train sweep.toml --slurm --submit --out refused --slurm.allow_software false)
until_true sh -c "! squeue -h | grep -q ."
grep -h "^error" refused/slurm-*.log
check "a task refuses software" grep -q "computes on the CPU" "refused/slurm-${job}_0.log"
saev collect refused
check "and its runs are missing" test $? = 1

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
