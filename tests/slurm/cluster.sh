# A Slurm of four nodes on this machine, from Debian's packages (slurmctld, slurmd, slurm-client,
# munge), for tests of ranks. Its daemons run as root, in a folder of their own; nothing of a Slurm
# that the machine may have is read or touched. Sourced:
#
#   start_cluster FOLDER     exports SLURM_CONF; returns 77 where it cannot be (not root, no packages)
#   stop_cluster             ends its daemons, and no others

cluster_nodes=4

start_cluster() {
  cluster=$1
  local program node
  [ "$(id -u)" -eq 0 ] || { echo "skipped: Slurm's daemons want root"; return 77; }
  for program in slurmctld slurmd srun munged; do
    command -v $program > /dev/null ||
      { echo "skipped: no $program; apt-get install slurmctld slurmd slurm-client munge"; return 77; }
  done
  # munged wants folders that nobody else can write into, as far as the root; /tmp is not.
  mkdir -p "$cluster/state" && chmod 755 "$cluster"
  dd if=/dev/urandom of="$cluster/munge.key" bs=1024 count=1 2> /dev/null && chmod 400 "$cluster/munge.key"
  munged --force --key-file="$cluster/munge.key" --socket="$cluster/munge.socket" \
    --pid-file="$cluster/munge.pid" --log-file="$cluster/munge.log" --seed-file="$cluster/munge.seed" ||
    return 1
  local ports=$((20000 + RANDOM % 5000))
  cat > "$cluster/slurm.conf" << CONF
ClusterName=kvctest
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$ports
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket
CredType=cred/munge
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool.%n
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.%n.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
DebugFlags=NO_CONF_HASH
MpiDefault=none
NodeName=node[1-$cluster_nodes] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[$((ports + 1))-$((ports + cluster_nodes))] CPUs=4
PartitionName=main Nodes=node[1-$cluster_nodes] Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$cluster/slurm.conf
  slurmctld > "$cluster/slurmctld.out" 2>&1 || return 1
  for ((node = 1; node <= cluster_nodes; ++node)); do
    # Nodes of one machine would make PMIx' folders under the same name.
    mkdir -p "$cluster/tmp.node$node" "$cluster/spool.node$node"
    { cat "$cluster/slurm.conf"; echo "TmpFS=$cluster/tmp.node$node"; } > "$cluster/node$node.conf"
    slurmd -N node$node -f "$cluster/node$node.conf" > "$cluster/slurmd.node$node.out" 2>&1 || return 1
  done
  # Likewise Open MPI's shared memory: as between real machines, everything goes over TCP.
  export OMPI_MCA_btl=self,tcp
  local waited
  for ((waited = 0; waited < 60; ++waited)); do
    [ "$(sinfo -h -t idle -o %D 2> /dev/null)" = $cluster_nodes ] && return 0
    sleep 1
  done
  echo "Slurm: expected $cluster_nodes idle nodes, got: $(sinfo -h 2>&1)"
  return 1
}

stop_cluster() {
  local file
  for file in "$cluster"/slurmd.*.pid "$cluster/slurmctld.pid" "$cluster/munge.pid"; do
    [ -s "$file" ] && kill "$(cat "$file")" 2> /dev/null
  done
  for file in "$cluster"/slurmd.*.pid "$cluster/slurmctld.pid"; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "$file" ] && sleep 0.3; done
  done
}
